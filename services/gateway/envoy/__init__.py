"""The edge: an Envoy in front of the gateway and the scheduler, and the bootstrap file that makes it one.

    clients --TLS, token--> edge      --HTTP/1.1--> gateway
    workers --------------> in_cluster --HTTP/2---> scheduler (whichever replica leads)

`settings` says what can be chosen and refuses what would be open by mistake. The other modules each make one part of
Envoy's file, as plain dictionaries in Envoy's own words: `listeners` (ports, TLS, HTTP), `filters` (rate limit, token),
`routes`, `replies` (what Envoy says by itself, in our words), `clusters` (where requests go, health), `tracing` and
`access_log`. `bootstrap` puts them together. Nothing here runs beside Envoy.
"""
