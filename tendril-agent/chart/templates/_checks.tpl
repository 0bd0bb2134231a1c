{{- /* What the schema cannot say: values that are right one by one and wrong together. Fails with what to do. */ -}}
{{- define "tendril-agent.checks" -}}
{{- $least := add .Values.shutdown.grace 60 -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- if lt (int .) (int $least) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d: the kubelet would kill a running apply. It must be at least shutdown.grace and 60 s: %d. Or leave it out." (int .) (int $least)) -}}
{{- end -}}
{{- end -}}
{{- if and (include "tendril-agent.several" .) (eq .Values.state.backend "local") -}}
{{- fail "More than one replica needs a Terraform state that they share: set state.backend to s3, http or pg (and state.config)." -}}
{{- end -}}
{{- if and (include "tendril-agent.several" .) .Values.persistence.existingClaim -}}
{{- fail "persistence.existingClaim is one volume, and each replica needs its own: leave it out, or set replicas to 1 and keda.enabled to false." -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.prometheusAddress) -}}
{{- fail "keda.enabled needs keda.prometheusAddress: the length of the queue is one of the agent's metrics." -}}
{{- end -}}
{{- if and .Values.keda.enabled (lt (int .Values.keda.maxReplicas) (int .Values.keda.minReplicas)) -}}
{{- fail "keda.maxReplicas is less than keda.minReplicas." -}}
{{- end -}}
{{- if and .Values.git.token (not .Values.git.hosts) -}}
{{- fail "git.token is of no use without a host that it may be shown to: set git.hosts." -}}
{{- end -}}
{{- if and .Values.git.token (not .Values.existingSecret) -}}
{{- fail "git.token needs existingSecret: a Secret of yours with the key TENDRIL_GIT_TOKEN. Or leave it out, and set TENDRIL_GIT_TOKEN from another Secret in extraEnv." -}}
{{- end -}}
{{- if and .Values.aws.roleArn (not .Values.serviceAccount.create) -}}
{{- fail "aws.roleArn annotates the service account that the chart makes: set serviceAccount.create, or annotate yours yourself." -}}
{{- end -}}
{{- end -}}
