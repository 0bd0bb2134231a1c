{{- /* What the agent's pod has whatever controls it. */ -}}
{{- define "tendril-agent.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "tendril-agent.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "tendril-agent.probes" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 2
  failureThreshold: 30
# Fails only when the agent is stuck, never because the control plane is away.
livenessProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet:
    path: /readyz
    port: health
  periodSeconds: 10
  timeoutSeconds: 5
{{- end -}}

{{- define "tendril-agent.tokenVolume" -}}
- name: token
  secret:
    secretName: {{ include "tendril-agent.secret" . }}
    defaultMode: 0440
    items:
      - key: TENDRIL_AGENT_TOKEN
        path: TENDRIL_AGENT_TOKEN
{{- end -}}

{{- /* Of the pods in which Terraform runs: the volumes of Secrets that it may need. 288 is 0440, which readers of YAML take for 440 or 288. */ -}}
{{- define "tendril-agent.workVolumes" -}}
{{- if and .Values.infracost.enabled .Values.infracost.existingSecret }}
- name: infracost
  secret:
    secretName: {{ .Values.infracost.existingSecret }}
    defaultMode: 288
    items:
      - key: {{ .Values.infracost.secretKey }}
        path: key
{{- end }}
{{- if .Values.git.token }}
- name: git-token
  secret:
    secretName: {{ include "tendril-agent.secret" . }}
    defaultMode: 288
    items:
      - key: TENDRIL_GIT_TOKEN
        path: TENDRIL_GIT_TOKEN
{{- end }}
{{- with .Values.registryTokens.hosts }}
- name: registry-tokens
  secret:
    secretName: {{ $.Values.registryTokens.existingSecret }}
    defaultMode: 288
    items:
      {{- range . }}
      - key: {{ . | quote }}
        path: {{ . | quote }}
      {{- end }}
{{- end }}
{{- end -}}

{{- define "tendril-agent.workMounts" -}}
{{- if and .Values.infracost.enabled .Values.infracost.existingSecret }}
- name: infracost
  mountPath: /etc/tendril-infracost
  readOnly: true
{{- end }}
{{- if .Values.git.token }}
- name: git-token
  mountPath: /etc/tendril-git
  readOnly: true
{{- end }}
{{- if .Values.registryTokens.hosts }}
- name: registry-tokens
  mountPath: /etc/tendril-registries
  readOnly: true
{{- end }}
{{- end -}}

{{- /* Which nodes take the pods: of the values, or of the values of runs. */ -}}
{{- define "tendril-agent.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
