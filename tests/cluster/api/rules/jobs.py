"""What makes a Job, and what of it may change."""

from typing import Any

from tests.cluster.api.kinds import Object
from tests.cluster.api.rules.metadata import label_rules, qualified_name_rules
from tests.cluster.api.rules.pods import of_template

_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_FIXED = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
_SCHEDULING = ("nodeSelector", "tolerations", "schedulingGates")
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_MOST_INDEXES = 100_000
_MOST_RULES = 20
_MOST_CODES = 255


def mistakes(new: Object, old: Object | None) -> list[str]:
    """What a real server refuses."""
    spec = new["spec"]
    found = _counts(spec) + _policies(spec) + of_template(spec["template"], "spec.template") + _restarts(spec)
    found += _selector(spec)
    if old is None:
        found += _hostname(new)
    else:
        found += _changes(new, old)
    return found + _status(new.get("status") or {}, (old or {}).get("status") or {}, spec)


def _counts(spec: Object) -> list[str]:
    found = [
        f"spec.{name}: Invalid value: {spec[name]}: must be greater than or equal to 0"
        for name in _COUNTS
        if spec.get(name, 0) < 0
    ]
    mode = spec["completionMode"]
    if mode not in ("NonIndexed", "Indexed"):
        found.append(f'spec.completionMode: Unsupported value: "{mode}": supported values: "NonIndexed", "Indexed"')
    if mode == "Indexed":
        if "completions" not in spec:
            found.append("spec.completions: Required value: when completion mode is Indexed")
        if spec["parallelism"] > _MOST_INDEXES:
            why = f"must be less than or equal to {_MOST_INDEXES} when completion mode is Indexed"
            found.append(f"spec.parallelism: Invalid value: {spec['parallelism']}: {why}")
        if spec.get("maxFailedIndexes", 0) > spec.get("completions", 0):
            found.append(
                f"spec.maxFailedIndexes: Invalid value: {spec['maxFailedIndexes']}: must be less than or equal to"
                " completions"
            )
    else:
        names = ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy")
        found += [
            f"spec.{name}: Invalid value: {spec[name]}: requires indexed completion mode"
            for name in names
            if name in spec
        ]
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        found.append("spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified")
    return found


def _policies(spec: Object) -> list[str]:
    found: list[str] = []
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or []
    if len(rules) > _MOST_RULES:
        found.append(f"spec.podFailurePolicy.rules: Too many: {len(rules)}: must have at most {_MOST_RULES} items")
    pod = spec["template"].get("spec") or {}
    names = {one["name"] for one in [*(pod.get("containers") or []), *(pod.get("initContainers") or [])]}
    for index, rule in enumerate(rules):
        found += _rule(rule, f"spec.podFailurePolicy.rules[{index}]", names, "backoffLimitPerIndex" in spec)
    replacement = spec["podReplacementPolicy"]
    allowed = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
    if replacement not in allowed:
        supported = ", ".join(f'"{one}"' for one in allowed)
        found.append(f'spec.podReplacementPolicy: Unsupported value: "{replacement}": supported values: {supported}')
    return found


def _rule(rule: Object, path: str, names: set[str], per_index: bool) -> list[str]:
    found: list[str] = []
    action = rule.get("action", "")
    if action not in _ACTIONS:
        supported = ", ".join(f'"{one}"' for one in _ACTIONS)
        found.append(f'{path}.action: Unsupported value: "{action}": supported values: {supported}')
    if action == "FailIndex" and not per_index:
        found.append(f'{path}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set')
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if codes and conditions:
        found.append(f"{path}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported")
    if not codes and not conditions:
        found.append(f"{path}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required")
    if codes:
        found += _exit_codes(codes, f"{path}.onExitCodes", names)
    for index, pattern in enumerate(conditions or []):
        where = f"{path}.onPodConditions[{index}]"
        found += [
            f'{where}.type: Invalid value: "{pattern["type"]}": {why}' for why in qualified_name_rules(pattern["type"])
        ]
        if pattern["status"] not in ("True", "False", "Unknown"):
            found.append(
                f'{where}.status: Unsupported value: "{pattern["status"]}": supported values: "False", "True",'
                ' "Unknown"'
            )
    return found


def _exit_codes(codes: Object, path: str, names: set[str]) -> list[str]:
    found: list[str] = []
    values = codes.get("values") or []
    if codes.get("operator") not in ("In", "NotIn"):
        found.append(
            f'{path}.operator: Unsupported value: "{codes.get("operator", "")}": supported values: "In", "NotIn"'
        )
    if (name := codes.get("containerName")) is not None and name not in names:
        why = "must be one of the container or initContainer names in the pod template"
        found.append(f'{path}.containerName: Invalid value: "{name}": {why}')
    if not values:
        found.append(f"{path}.values: Invalid value: []: at least one value is required")
    if len(values) > _MOST_CODES:
        found.append(f"{path}.values: Too many: {len(values)}: must have at most {_MOST_CODES} items")
    if codes.get("operator") == "In" and 0 in values:
        found.append(f"{path}.values[{values.index(0)}]: Invalid value: 0: must not be 0 for the In operator")
    found += [
        f"{path}.values[{index}]: Duplicate value: {code}"
        for index, code in enumerate(values)
        if code in values[:index]
    ]
    if values != sorted(values):
        found.append(f"{path}.values: Invalid value: {values}: must be ordered")
    return found


def _restarts(spec: Object) -> list[str]:
    policy, path = (spec["template"].get("spec") or {}).get("restartPolicy"), "spec.template.spec.restartPolicy"
    if policy in (None, "", "Always"):
        return [f'{path}: Required value: valid values: "OnFailure", "Never"']
    if policy != "Never" and "podFailurePolicy" in spec:
        return [f'{path}: Invalid value: "{policy}": only "Never" is supported when podFailurePolicy is specified']
    return []


def _selector(spec: Object) -> list[str]:
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    wanted = (spec.get("selector") or {}).get("matchLabels") or {}
    if not wanted.items() <= labels.items():
        return [f"spec.template.metadata.labels: Invalid value: {labels}: `selector` does not match template `labels`"]
    return []


def _hostname(job: Object) -> list[str]:
    """The last index's pod must be able to have a host name."""
    spec, name = job["spec"], job["metadata"]["name"]
    if spec["completionMode"] == "Indexed" and spec.get("completions"):
        longest = f"{name}-{spec['completions'] - 1}"
        if label_rules(longest):
            why = f"will not able to create pod with invalid DNS label: {longest}"
            return [f'metadata.name: Invalid value: "{name}": {why}']
    return []


def _changes(new: Object, old: Object) -> list[str]:
    spec, before = new["spec"], old["spec"]
    found = [_immutable(name, spec.get(name)) for name in _FIXED if spec.get(name) != before.get(name)]
    if spec.get("completions") != before.get("completions"):
        elastic = spec["completionMode"] == "Indexed" and spec.get("completions") == spec["parallelism"]
        if not elastic:
            why = "can only be modified in tandem with spec.parallelism"
            found.append(f"spec.completions: Invalid value: {spec.get('completions')}: {why}")
    if _fixed_template(new, old) != _fixed_template(old, old):
        found.append(_immutable("template", "..."))
    return found


def _fixed_template(job: Object, old: Object) -> Object:
    """What of the template may never change: where it runs may, as long as a suspended Job has never run."""
    template = job["spec"]["template"]
    suspended = old["spec"].get("suspend") and "startTime" not in (old.get("status") or {})
    if not suspended:
        return dict(template)
    kept = {name: part for name, part in template["spec"].items() if name not in _SCHEDULING}
    kept["affinity"] = {name: part for name, part in (kept.get("affinity") or {}).items() if name != "nodeAffinity"}
    return {"spec": kept}


def _immutable(name: str, value: Any) -> str:
    shown = f'"{value}"' if isinstance(value, str) else value
    return f"spec.{name}: Invalid value: {shown}: field is immutable"


def _status(status: Object, before: Object, spec: Object) -> list[str]:
    """What even a controller may not write."""
    path = "status.conditions: Invalid value"
    true = {one["type"] for one in status.get("conditions") or [] if one["status"] == "True"}
    was = {one["type"] for one in before.get("conditions") or [] if one["status"] == "True"}
    found = [
        f"{path}: cannot disable the terminal {name}=True condition"
        for name in sorted(was - true)
        if name in ("Complete", "Failed", "FailureTarget")
    ]
    if {"Complete", "Failed"} <= true:
        found.append(f"{path}: cannot set Complete=True and Failed=true conditions")
    if "Failed" in true and "FailureTarget" not in true:
        found.append(f"{path}: cannot set Failed=True condition without the FailureTarget=true condition")
    if "Complete" in true and "SuccessCriteriaMet" not in true:
        found.append(f"{path}: cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
    if status.get("active", 0) and true & {"Complete", "Failed"}:
        found.append(f"status.active: Invalid value: {status['active']}: active>0 is invalid for finished job")
    if status.get("ready", 0) > status.get("active", 0):
        found.append(f"status.ready: Invalid value: {status['ready']}: cannot set more ready pods than active")
    return found
