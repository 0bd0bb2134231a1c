{{- /* The agent's settings; extraEnv comes after them. One place, so that the checks can see what is set. */ -}}
{{- define "tendril-agent.environment" -}}
- name: SUPABASE_URL
  {{- if .Values.supabase.url }}
  value: {{ .Values.supabase.url | quote }}
  {{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ include "tendril-agent.secret" . }}
      key: SUPABASE_URL
  {{- end }}
- name: SUPABASE_PUBLISHABLE_KEY
  {{- if .Values.supabase.publishableKey }}
  value: {{ .Values.supabase.publishableKey | quote }}
  {{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ include "tendril-agent.secret" . }}
      key: SUPABASE_PUBLISHABLE_KEY
  {{- end }}
{{- if include "tendril-agent.tokenInFile" . }}
- name: TENDRIL_AGENT_TOKEN_FILE
  value: /etc/tendril/TENDRIL_AGENT_TOKEN
{{- else }}
- name: TENDRIL_AGENT_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "tendril-agent.secret" . }}
      key: TENDRIL_AGENT_TOKEN
{{- end }}
- name: TENDRIL_AGENT_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: TENDRIL_TEMPLATES_DIR
  value: /opt/tendril/templates
- name: TENDRIL_WORK_DIR
  value: /var/lib/tendril/work
- name: TENDRIL_STATE_DIR
  value: /var/lib/tendril/state
- name: TENDRIL_STATE_BACKEND
  value: {{ .Values.state.backend }}
{{- with .Values.state.config }}
- name: TENDRIL_STATE_CONFIG
  value: {{ toJson . | quote }}
{{- end }}
{{- if not .Values.infracost.enabled }}
- name: TENDRIL_INFRACOST
  value: "off"
{{- else if .Values.infracost.existingSecret }}
- name: TENDRIL_INFRACOST_KEY_FILE
  value: /etc/tendril-infracost/key
{{- end }}
- name: TENDRIL_CONCURRENCY
  value: {{ .Values.concurrency | quote }}
- name: TENDRIL_LAUNCHER
  value: {{ .Values.launcher }}
- name: TENDRIL_INTAKE
  value: {{ .Values.intake }}
- name: TENDRIL_WORK_LIMIT
  value: {{ include "tendril-agent.workLimit" . }}
- name: TENDRIL_SPOOL_LIMIT
  value: {{ .Values.spoolLimit }}
- name: TENDRIL_HEARTBEAT
  value: {{ .Values.timing.heartbeat }}
- name: TENDRIL_STARTUP_JITTER
  value: {{ .Values.timing.startupJitter }}
- name: TENDRIL_LOCK_TIMEOUT
  value: {{ .Values.timing.lockTimeout }}
- name: TENDRIL_PLAN_CANCEL_GRACE
  value: {{ .Values.timing.planCancelGrace }}
- name: TENDRIL_APPLY_CANCEL_GRACE
  value: {{ .Values.timing.applyCancelGrace }}
- name: TENDRIL_GIT_TIMEOUT
  value: {{ .Values.timing.gitTimeout }}
- name: TENDRIL_COST_TIMEOUT
  value: {{ .Values.timing.costTimeout }}
- name: TENDRIL_INIT_TIMEOUT
  value: {{ .Values.timing.initTimeout }}
- name: TENDRIL_PLAN_TIMEOUT
  value: {{ .Values.timing.planTimeout }}
- name: TENDRIL_APPLY_TIMEOUT
  value: {{ .Values.timing.applyTimeout }}
- name: TENDRIL_SILENCE_TIMEOUT
  value: {{ .Values.timing.silenceTimeout }}
{{- with .Values.hooks.dir }}
- name: TENDRIL_HOOK_DIR
  value: {{ . }}
- name: TENDRIL_HOOK_TIMEOUT
  value: {{ $.Values.hooks.timeout }}
{{- end }}
- name: TENDRIL_SHUTDOWN_GRACE
  value: {{ printf "%ds" (int .Values.shutdown.grace) }}
- name: TENDRIL_HEALTH_ADDR
  value: 0.0.0.0:8080
- name: TENDRIL_LOG
  value: {{ .Values.log.level | quote }}
- name: TENDRIL_LOG_FORMAT
  value: {{ .Values.log.format }}
{{- with .Values.aws.region }}
- name: AWS_REGION
  value: {{ . }}
{{- end }}
{{- with .Values.git.hosts }}
- name: TENDRIL_GIT_HOSTS
  value: {{ join "," . | quote }}
{{- with $.Values.git.tokenFor }}
- name: TENDRIL_GIT_TOKEN_FOR
  value: {{ join "," . | quote }}
{{- end }}
- name: TENDRIL_GIT_LIMIT
  value: {{ $.Values.git.limit }}
{{- end }}
{{- if .Values.git.token }}
- name: TENDRIL_GIT_TOKEN_FILE
  value: /etc/tendril-git/TENDRIL_GIT_TOKEN
{{- end }}
{{- with .Values.git.user }}
- name: TENDRIL_GIT_USER
  value: {{ . | quote }}
{{- end }}
{{- with .Values.terraformEnv }}
- name: TENDRIL_TERRAFORM_ENV
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.terraformConfig }}
- name: TENDRIL_TERRAFORM_CONFIG
  value: {{ . | quote }}
{{- end }}
{{- with .Values.terraformDir }}
- name: TENDRIL_TERRAFORM_DIR
  value: {{ . | quote }}
{{- end }}
{{- with .Values.registryTokens.hosts }}
- name: TENDRIL_TERRAFORM_TOKEN_FILE
  value: {{ include "tendril-agent.registryTokenFiles" . | quote }}
{{- end }}
{{- end -}}

{{- define "tendril-agent.registryTokenFiles" -}}
{{- range $place, $host := . }}{{ if $place }},{{ end }}{{ $host }}=/etc/tendril-registries/{{ $host }}{{ end -}}
{{- end -}}

{{- /* What the pods of runs need, and the agent's own has no use for. */ -}}
{{- define "tendril-agent.runsAlone" -}}
{{- list "TENDRIL_INFRACOST" "TENDRIL_INFRACOST_KEY_FILE" "TENDRIL_SPOOL_LIMIT" "TENDRIL_HOOK_DIR" "TENDRIL_GIT_HOSTS" "TENDRIL_GIT_TOKEN_FOR" "TENDRIL_GIT_TOKEN_FILE" "TENDRIL_GIT_LIMIT" "TENDRIL_GIT_USER" "TENDRIL_TERRAFORM_ENV" "TENDRIL_TERRAFORM_CONFIG" "TENDRIL_TERRAFORM_DIR" "TENDRIL_TERRAFORM_TOKEN_FILE" "AWS_REGION" | toJson -}}
{{- end -}}

{{- /* What runs get from the agent, or have no use for: the key above all. */ -}}
{{- define "tendril-agent.dispatcherAlone" -}}
{{- list "SUPABASE_URL" "SUPABASE_PUBLISHABLE_KEY" "TENDRIL_AGENT_TOKEN" "TENDRIL_AGENT_TOKEN_FILE" "TENDRIL_AGENT_NAME" "TENDRIL_WORK_DIR" "TENDRIL_STATE_DIR" "TENDRIL_CONCURRENCY" "TENDRIL_LAUNCHER" "TENDRIL_INTAKE" "TENDRIL_WORK_LIMIT" "TENDRIL_STARTUP_JITTER" "TENDRIL_SHUTDOWN_GRACE" "TENDRIL_HEALTH_ADDR" | toJson -}}
{{- end -}}

{{- define "tendril-agent.runEnvironment" -}}
{{- $without := include "tendril-agent.dispatcherAlone" . | fromJsonArray -}}
{{- range include "tendril-agent.environment" . | fromYamlArray }}
{{- if not (has .name $without) }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tendril-agent.dispatcherEnvironment" -}}
{{- $without := concat (include "tendril-agent.runsAlone" . | fromJsonArray) (list "TENDRIL_SHUTDOWN_GRACE" "TENDRIL_WORK_LIMIT") -}}
{{- range include "tendril-agent.environment" . | fromYamlArray }}
{{- if not (has .name $without) }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end }}
- name: TENDRIL_INFRACOST
  value: "off"
- name: TENDRIL_SHUTDOWN_GRACE
  value: 30s
- name: TENDRIL_RUN_IMAGE
  value: {{ include "tendril-agent.runImage" . | quote }}
- name: TENDRIL_RUN_IMAGE_PULL_POLICY
  value: {{ .Values.image.pullPolicy }}
- name: TENDRIL_RUN_NAMESPACE
  value: {{ include "tendril-agent.runNamespace" . | quote }}
- name: TENDRIL_SERVICE_ACCOUNT_MAP
  value: /etc/tendril-runs/service-account-map.yaml
- name: TENDRIL_POD_TEMPLATE
  value: /etc/tendril-runs/pod-template.yaml
- name: TENDRIL_POD_START_DEADLINE
  value: {{ .Values.runs.startDeadline }}
- name: TENDRIL_KEEP_FINISHED_RUNS
  value: {{ .Values.runs.keepFinished }}
{{- with .Values.runs.planVolumeClaim }}
- name: TENDRIL_PLAN_VOLUME_CLAIM
  value: {{ . | quote }}
{{- else }}
- name: TENDRIL_PLAN_ACCOUNT
  value: {{ include "tendril-agent.planAccount" . }}
{{- end }}
- name: TENDRIL_LEASE
  value: {{ include "tendril-agent.lease" . | quote }}
- name: TENDRIL_LEASE_DURATION
  value: {{ .Values.dispatcher.leaseDuration }}
- name: TENDRIL_LEASE_RENEW_DEADLINE
  value: {{ .Values.dispatcher.leaseRenewDeadline }}
{{- end -}}
