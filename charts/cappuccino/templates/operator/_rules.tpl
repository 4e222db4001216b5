{{/* What the operator does in a namespace that it watches (cappuccino/adapters/kubernetes). No Secrets, no wildcards. */}}
{{- define "cappuccino.operatorRules" -}}
- apiGroups: [cappuccino.dev]
  resources: [datasets, studies, trials, deployments, traders]
  verbs: [get, list, watch, patch]
- apiGroups: [cappuccino.dev]
  resources: [trials, traders]
  verbs: [create, delete]
- apiGroups: [cappuccino.dev]
  resources: [datasets/status, studies/status, trials/status, deployments/status, traders/status]
  verbs: [patch]
# A Trial's and a Trader's owner reference blocks the owner's deletion: some clusters ask for this right to write it.
- apiGroups: [cappuccino.dev]
  resources: [studies/finalizers, deployments/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
{{- end }}

{{/* The Lease by which one operator of a namespace works, be it of another release: its name is the operator's (operator/main.py). */}}
{{- define "cappuccino.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [cappuccino-operator]
  verbs: [get, update, patch]
{{- end }}
