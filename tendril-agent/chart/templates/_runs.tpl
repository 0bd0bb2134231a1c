{{- /* What launcher kubernetes adds: where the runs are, and the two files that the agent makes their pods from. */ -}}
{{- define "tendril-agent.runNamespace" -}}
{{- .Values.runs.namespace | default .Release.Namespace -}}
{{- end -}}

{{- /* Name of the Lease: releases of several namespaces may have the same name, and their runs one namespace. */ -}}
{{- define "tendril-agent.lease" -}}
{{- $name := include "tendril-agent.name" . -}}
{{- eq (include "tendril-agent.runNamespace" .) .Release.Namespace | ternary $name (printf "%s.%s" .Release.Namespace $name) -}}
{{- end -}}

{{- define "tendril-agent.runImage" -}}
{{- .Values.runs.image | default (include "tendril-agent.image" .) -}}
{{- end -}}

{{- /* Whether the pod of a run writes its plan into a Secret, and so needs the API server. */ -}}
{{- define "tendril-agent.plansInSecrets" -}}
{{- if not .Values.runs.planVolumeClaim -}}true{{- end -}}
{{- end -}}

{{- /* The service account that may create those Secrets. No pod has it; a run gets a token of it that ends with its pod. */ -}}
{{- define "tendril-agent.planAccount" -}}
{{- include "tendril-agent.name" . }}-plans
{{- end -}}

{{- define "tendril-agent.runSelector" -}}
app.kubernetes.io/name: tendril-run
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- /* The service accounts that the map names, each once: a list in JSON. */ -}}
{{- define "tendril-agent.runAccounts" -}}
{{- $accounts := list -}}
{{- range .Values.runs.serviceAccountMap -}}
{{- $accounts = append $accounts .serviceAccount -}}
{{- end -}}
{{- $accounts | uniq | toJson -}}
{{- end -}}

{{- /* Requests and limits as text: a number of YAML would arrive as 1.073741824e+09. */ -}}
{{- define "tendril-agent.quantities" -}}
{{- range $kind := list "requests" "limits" -}}
{{- with get $ $kind }}
{{ $kind }}:
  {{- range $name, $amount := . }}
  {{- if not (kindIs "invalid" $amount) }}
  {{ $name }}: {{ kindIs "string" $amount | ternary $amount (eq (floor $amount) (float64 $amount) | ternary (int64 $amount) $amount) | toString | quote }}
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.serviceAccountMap" -}}
{{- range .Values.runs.serviceAccountMap }}
- {{ omit . "resources" | toYaml | nindent 2 | trim }}
  {{- with include "tendril-agent.quantities" (.resources | default dict) | trim }}
  resources:
    {{- . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* The agent adds the rest: command, service account, the Secret of the run, security contexts, grace. */ -}}
{{- define "tendril-agent.podTemplate" -}}
metadata:
  labels:
    {{- /* The agent adds the rest of the selector of runs. */ -}}
    {{- toYaml (merge (dict "app.kubernetes.io/instance" .Release.Name) .Values.runs.podLabels) | nindent 4 }}
  {{- with .Values.runs.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.runs.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- include "tendril-agent.podSecurity" . | nindent 4 }}
  containers:
    - name: run
      env:
        {{- include "tendril-agent.runEnvironment" . | trim | nindent 8 }}
        {{- with .Values.runs.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      securityContext:
        {{- include "tendril-agent.containerSecurity" . | nindent 8 }}
      {{- with include "tendril-agent.quantities" .Values.runs.resources | trim }}
      resources:
        {{- . | nindent 8 }}
      {{- end }}
      {{- $mounts := include "tendril-agent.workMounts" . | trim }}
      {{- if or $mounts .Values.runs.extraVolumeMounts }}
      volumeMounts:
        {{- with $mounts }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with .Values.runs.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
  {{- $volumes := include "tendril-agent.workVolumes" . | trim }}
  {{- if or $volumes .Values.runs.extraVolumes }}
  volumes:
    {{- with $volumes }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .Values.runs.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with include "tendril-agent.placement" .Values.runs | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}
