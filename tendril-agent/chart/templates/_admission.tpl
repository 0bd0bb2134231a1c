{{- /* What the admission policies know of runs. The policies are the cluster's, so their names have the release's namespace in them. */ -}}
{{- define "tendril-agent.policy" -}}
{{- .Release.Namespace }}.{{ include "tendril-agent.name" . -}}
{{- end -}}

{{- define "tendril-agent.agentUser" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "tendril-agent.serviceAccount" .) -}}
{{- end -}}

{{- /* What the names of all objects of a run begin with: tendril-<deployment>-<attempt>. */ -}}
{{- define "tendril-agent.objectOfRun" -}}
tendril-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-[0-9]+(-|$)
{{- end -}}

{{- /* A list of CEL. */ -}}
{{- define "tendril-agent.celList" -}}
{{- $quoted := list -}}
{{- range . -}}
{{- $quoted = append $quoted (squote .) -}}
{{- end -}}
[{{ join ", " $quoted }}]
{{- end -}}

{{- /* The Secrets that the pods of runs name by the chart's values: a list in JSON. */ -}}
{{- define "tendril-agent.runSecrets" -}}
{{- $secrets := list -}}
{{- $pod := (include "tendril-agent.podTemplate" . | fromYaml).spec -}}
{{- range $pod.containers -}}
{{- range .env -}}
{{- with dig "valueFrom" "secretKeyRef" "name" "" . -}}{{- $secrets = append $secrets . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $pod.volumes -}}
{{- with dig "secret" "secretName" "" . -}}{{- $secrets = append $secrets . -}}{{- end -}}
{{- range dig "projected" "sources" list . -}}
{{- with dig "secret" "name" "" . -}}{{- $secrets = append $secrets . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $secrets | uniq | sortAlpha | toJson -}}
{{- end -}}
