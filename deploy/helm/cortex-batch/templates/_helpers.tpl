{{- define "cortex.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (default .Chart.Name .Values.nameOverride) .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Of (dict "root" $ "component" "gateway"). */}}
{{- define "cortex.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "cortex.labels" -}}
{{ include "cortex.selector" . }}
app.kubernetes.io/part-of: cortex-batch
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Name, namespace and labels of a component's object. "suffix" replaces the component in its name. */}}
{{- define "cortex.metadata" -}}
name: {{ include "cortex.fullname" .root }}-{{ default .component .suffix }}
namespace: {{ default .root.Release.Namespace .namespace }}
labels:
  {{- include "cortex.labels" . | nindent 2 }}
{{- end }}

{{/* Of (dict "root" $ "image" .Values.gateway.image): by digest, else by tag, else by the chart's version. */}}
{{- define "cortex.image" -}}
{{- $name := print .root.Values.imageRegistry .image.repository -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end }}

{{/* What every pod of ours has. Of (dict "root" $ "component" ...). */}}
{{- define "cortex.pod" -}}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
# Replicas on nodes, and in zones, of their own where there are such. Those of a version that is just being replaced do
# not count: else both new ones may come to be where only one of the old ones was.
topologySpreadConstraints:
  {{- $selector := include "cortex.selector" . }}
  {{- range $where := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $where }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}

{{/* What every container of ours has. Of (dict "root" $ "image" ...). */}}
{{- define "cortex.container" -}}
image: {{ include "cortex.image" . }}
{{- with .root.Values.imagePullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* The host and port of a component's Service. */}}
{{- define "cortex.host" -}}
{{ include "cortex.fullname" .root }}-{{ .component }}.{{ .root.Release.Namespace }}.svc.cluster.local
{{- end }}
{{- define "cortex.schedulerAddress" -}}
dns:///{{ include "cortex.host" (dict "root" . "component" "scheduler") }}:8889
{{- end }}
{{/* As workers reach it. The edge finds the replica that leads; without `dns:///` nobody else looks for it. */}}
{{- define "cortex.workersSchedulerAddress" -}}
{{- if eq .Values.workers.connect "edge" -}}
{{ include "cortex.host" (dict "root" . "component" "edge-in-cluster") }}:80
{{- else -}}
{{ include "cortex.schedulerAddress" . }}
{{- end -}}
{{- end }}
{{- define "cortex.inClusterUrl" -}}
http://{{ include "cortex.host" (dict "root" . "component" "edge-in-cluster") }}
{{- end }}
{{- define "cortex.otlpEndpoint" -}}
{{- if .Values.tracing.otlpEndpoint -}}
{{ .Values.tracing.otlpEndpoint }}
{{- else if .Values.collector.enabled -}}
http://{{ include "cortex.host" (dict "root" . "component" "collector") }}:4317
{{- end -}}
{{- end }}

{{/* The environment that our services share. */}}
{{- define "cortex.environment" -}}
- name: CORTEX_LOG_LEVEL
  value: {{ .Values.logLevel }}
{{- with include "cortex.otlpEndpoint" . }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . }}
{{- end }}
- name: CORTEX_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}

{{- define "cortex.workersNamespace" -}}
{{ default .Release.Namespace .Values.workers.namespace }}
{{- end }}
{{- define "cortex.workersServiceAccount" -}}
{{- if .Values.workers.serviceAccount.create -}}
{{ default (printf "%s-worker" (include "cortex.fullname" .)) .Values.workers.serviceAccount.name }}
{{- else -}}
{{ .Values.workers.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- define "cortex.ledgerSecret" -}}
{{- default (printf "%s-ledger" (include "cortex.fullname" .)) .Values.ledger.existingSecret.name -}}
{{- end }}
{{- define "cortex.ledgerKey" -}}
{{- if .Values.ledger.existingSecret.name }}{{ .Values.ledger.existingSecret.key }}{{ else }}url{{ end -}}
{{- end }}
