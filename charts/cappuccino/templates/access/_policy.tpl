{{/*
What both policies share. RBAC cannot grant "this annotation only"; these can. `patch` with a verb of ours (halt, resume, approve) lets its
holder write the verb's annotations, under their own name, and nothing else. `update` is what tells an editor, who needs the verbs
resume and approve for these annotations like everybody. What ends in -acted is the operator's memory of what it has acted on.

dict of `root`, `plural` and `asks`: verb to its annotations (cappuccino/controllers/requests.py). Each becomes a variable, haltChanged and so on.
`variables`, when given, are its own. `besides`, when given, is CEL for a change of the spec that takes a verb of ours instead of `update`.
*/}}
{{- define "cappuccino.policy" -}}
{{- $own := list }}{{ range .asks }}{{ $own = concat $own . }}{{ end -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ include "cappuccino.clusterwide" .root }}-{{ .plural }}
  labels: {{ include "cappuccino.labels" (dict "root" .root "component" "access") | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [cappuccino.dev]
        apiVersions: ["*"]
        operations: [CREATE, UPDATE]
        resources: [{{ .plural }}]
  variables:
    - name: user
      expression: request.userInfo.username
    - name: operator
      expression: variables.user == '{{ include "cappuccino.operatorUser" .root }}'
    - name: editor
      expression: variables.operator || authorizer.requestResource.check('update').allowed()
    - name: trusted
      expression: variables.operator || authorizer.requestResource.check('approve').allowed()
    - name: before
      expression: "request.operation == 'CREATE' ? {} : oldObject.metadata.?annotations.orValue({})"
    - name: after
      expression: "object.metadata.?annotations.orValue({})"
    - name: changed
      expression: >-
        variables.after.map(k, k).filter(k, !(k in variables.before) || variables.before[k] != variables.after[k])
        + variables.before.map(k, k).filter(k, !(k in variables.after))
    - name: unfinalized
      expression: >-
        request.operation == 'CREATE' ? []
        : oldObject.metadata.?finalizers.orValue([]).filter(f, !(f in object.metadata.?finalizers.orValue([])))
    {{- range .variables }}
    - name: {{ .name }}
      expression: {{ .expression | quote }}
    {{- end }}
    {{- range $verb, $keys := .asks }}
    - name: {{ $verb }}Changed
      expression: variables.changed.exists(k, k in {{ include "cappuccino.annotations" $keys }})
    {{- end }}
  validations:
    - expression: "variables.operator || !variables.changed.exists(k, k.startsWith('cappuccino.dev/') && k.endsWith('-acted'))"
      message: "annotations that end in -acted are the operator's: leave them as they are"
      reason: Forbidden
    - expression: >-
        variables.editor || request.operation == 'CREATE' || (
        (object.spec == oldObject.spec{{ with .besides }} || {{ . }}{{ end }})
        && object.metadata.?labels == oldObject.metadata.?labels
        && object.metadata.?finalizers == oldObject.metadata.?finalizers
        && object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences
        && variables.changed.all(k, k in {{ include "cappuccino.annotations" $own }}))
      messageExpression: >-
        variables.user + " lacks the verb update on {{ .plural }}.cappuccino.dev and may change only the annotations
        {{ join ", " $own }} of cappuccino.dev: leave the rest as it is, or ask for the role {{ include "cappuccino.fullname" .root }}-editor"
      reason: Forbidden
{{- end }}

{{/* A CEL list of our annotations' full names. */}}
{{- define "cappuccino.annotations" -}}
[{{ range $i, $key := . }}{{ if $i }}, {{ end }}'cappuccino.dev/{{ $key }}'{{ end }}]
{{- end }}

{{- define "cappuccino.policyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ include "cappuccino.clusterwide" .root }}-{{ .plural }}
  labels: {{ include "cappuccino.labels" (dict "root" .root "component" "access") | nindent 4 }}
spec:
  policyName: {{ include "cappuccino.clusterwide" .root }}-{{ .plural }}
  validationActions: [Deny]
  {{- if not .root.Values.watch.allNamespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - {key: kubernetes.io/metadata.name, operator: In, values: {{ include "cappuccino.namespaces" .root }}}
  {{- end }}
{{- end }}
