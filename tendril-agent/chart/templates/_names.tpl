{{- /* Of all resources: at most 52 letters, so that what Kubernetes appends to it fits. A release's name may have dots, a Service's may not. */ -}}
{{- define "tendril-agent.name" -}}
{{- $name := .Values.nameOverride -}}
{{- if not $name -}}
{{- $release := replace "." "-" .Release.Name -}}
{{- $name = contains .Chart.Name $release | ternary $release (printf "%s-%s" $release .Chart.Name) -}}
{{- end -}}
{{- $name | trunc 52 | trimAll "-" -}}
{{- end -}}

{{- /* Whether jobs are pods of their own. */ -}}
{{- define "tendril-agent.inPods" -}}
{{- if eq .Values.launcher "kubernetes" -}}true{{- end -}}
{{- end -}}

{{- /* Whether the key is mounted, and read again when it changes. */ -}}
{{- define "tendril-agent.tokenInFile" -}}
{{- if or (eq .Values.tokenFrom "file") (include "tendril-agent.inPods" .) -}}true{{- end -}}
{{- end -}}

{{- define "tendril-agent.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "tendril-agent.labels" -}}
{{ include "tendril-agent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "tendril-agent.secret" -}}
{{- .Values.existingSecret | default (include "tendril-agent.name" .) -}}
{{- end -}}

{{- define "tendril-agent.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "tendril-agent.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* More than one pod, now or later. */ -}}
{{- define "tendril-agent.several" -}}
{{- if or (gt (int .Values.replicas) 1) .Values.keda.enabled -}}true{{- end -}}
{{- end -}}

{{- /* A quantity of Kubernetes ("20Gi", "512M", 1.5e9 bytes) in MiB; nothing when it is not one of bytes. */ -}}
{{- define "tendril-agent.mebibytes" -}}
{{- $text := toString . -}}
{{- if regexMatch "^[0-9]+([.][0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$" $text -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- divf (mulf $number (get $units (regexFind "[A-Za-z]*$" $text))) 1048576.0 | floor | int64 -}}
{{- end -}}
{{- end -}}

{{- /* Disk use above which no job is claimed: there must be room left for the providers of the jobs that run already. */ -}}
{{- define "tendril-agent.workLimit" -}}
{{- .Values.workLimit | default (printf "%dMiB" (div (mul (include "tendril-agent.mebibytes" .Values.persistence.size | int64) 7) 10)) -}}
{{- end -}}
