{{- /* What the schema cannot check, or cannot explain: it names only a value and the expression that it does not match. Each
rule here fails with a sentence that says what to do, and none shows a value that may be a secret. */ -}}
{{- define "tendril-agent.checks" -}}
{{- include "tendril-agent.checkSecrets" . -}}
{{- include "tendril-agent.checkValues" . -}}
{{- include "tendril-agent.checkRuns" . -}}
{{- include "tendril-agent.checkPods" . -}}
{{- include "tendril-agent.checkState" . -}}
{{- include "tendril-agent.checkNetwork" . -}}
{{- include "tendril-agent.checkEnvironment" . -}}
{{- end -}}

{{- define "tendril-agent.checkSecrets" -}}
{{- with .Values.supabase.url -}}
{{- if not (regexMatch "^https?://[^\\s/@]+(/\\S*)?$" .) -}}
{{- fail "supabase.url is not the URL of a project: give its base URL, such as https://abcd.supabase.co, without a user name." -}}
{{- end -}}
{{- end -}}
{{- with .Values.supabase.publishableKey -}}
{{- if hasPrefix "sb_secret_" . -}}
{{- fail "supabase.publishableKey is a secret key: an agent must never have one. Use the publishable (or anon) key, and roll the secret key." -}}
{{- end -}}
{{- if regexMatch "\\s" . -}}
{{- fail "supabase.publishableKey holds a space or a line break: copy the key again." -}}
{{- end -}}
{{- end -}}
{{- with .Values.agentToken -}}
{{- if not (regexMatch "^(tdl_[0-9A-Za-z]{65}|[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+)$" .) -}}
{{- fail "agentToken is neither an API key (tdl_ and 65 letters and digits) nor a machine token (a JWT): copy it again, whole." -}}
{{- end -}}
{{- end -}}
{{- if not .Values.existingSecret -}}
{{- if not (and .Values.agentToken .Values.supabase.url .Values.supabase.publishableKey) -}}
{{- fail "The agent needs a token and a project: set existingSecret to the name of a Secret that has them, or set all of agentToken, supabase.url and supabase.publishableKey." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkValues" -}}
{{- with .Values.nameOverride -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" .) -}}
{{- fail (printf "nameOverride is %q: a name is made of a-z, 0-9 and -, and neither begins nor ends with -." .) -}}
{{- end -}}
{{- end -}}
{{- if and (not (include "tendril-agent.inPods" .)) (regexMatch "^[0-9]" (include "tendril-agent.name" .)) -}}
{{- fail (printf "The release's name makes a Service called %s, and Kubernetes takes no name that begins with a digit: set nameOverride." (include "tendril-agent.name" .)) -}}
{{- end -}}
{{- with .Values.image.digest -}}
{{- if not (regexMatch "^sha256:[0-9a-f]{64}$" .) -}}
{{- fail (printf "image.digest is %q: write sha256: and 64 hexadecimal digits. A tag goes to image.tag." .) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti)?$" .Values.persistence.size) -}}
{{- fail (printf "persistence.size is %q: write a size as Kubernetes does, such as 10Gi." .Values.persistence.size) -}}
{{- end -}}
{{- range .Values.terraformEnv -}}
{{- if not (regexMatch "^[A-Za-z_][A-Za-z0-9_]*\\*?$" .) -}}
{{- fail (printf "terraformEnv holds %q: write names of variables, or the beginning of some and *. Their values go to extraEnv." .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.aws.roleArn -}}
{{- if not (regexMatch "^arn:aws[a-z-]*:iam::[0-9]{12}:role/\\S+$" .) -}}
{{- fail (printf "aws.roleArn is %q: write the role's whole ARN, such as arn:aws:iam::123456789012:role/agent." .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.aws.region -}}
{{- if not (regexMatch "^[a-z]{2}(-[a-z]+)+-[0-9]$" .) -}}
{{- fail (printf "aws.region is %q: write the region's name, such as eu-central-1." .) -}}
{{- end -}}
{{- end -}}
{{- $unavailable := toString .Values.podDisruptionBudget.maxUnavailable -}}
{{- if not (regexMatch "^([0-9]+|[0-9]{1,3}%)$" $unavailable) -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable is %q: write a number of agents, or a percentage such as 50%%." $unavailable) -}}
{{- end -}}
{{- range $monitor := list "serviceMonitor" "podMonitor" -}}
{{- if not (regexMatch "^[0-9]+(ms|s|m|h)$" (get $.Values $monitor).interval) -}}
{{- fail (printf "%s.interval is %q: write a time as Prometheus does, such as 30s." $monitor (get $.Values $monitor).interval) -}}
{{- end -}}
{{- end -}}
{{- with .Values.keda.prometheusAddress -}}
{{- if not (regexMatch "^https?://\\S+$" .) -}}
{{- fail (printf "keda.prometheusAddress is %q: write a URL, such as http://prometheus.monitoring:9090." .) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[0-9]+(KiB|MiB|GiB)$" .Values.git.limit) -}}
{{- fail (printf "git.limit is %q: write a size as the agent does, such as 1GiB." .Values.git.limit) -}}
{{- end -}}
{{- with .Values.workLimit -}}
{{- if not (regexMatch "^[0-9]+(KiB|MiB|GiB)?$" .) -}}
{{- fail (printf "workLimit is %q: write a size as the agent does, such as 14GiB." .) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[0-9]+(KiB|MiB|GiB)?$" .Values.spoolLimit) -}}
{{- fail (printf "spoolLimit is %q: write a size as the agent does, such as 256MiB." .Values.spoolLimit) -}}
{{- end -}}
{{- if not (regexMatch "^([1-9]|1[0-9]|20)s$" .Values.timing.heartbeat) -}}
{{- fail (printf "timing.heartbeat is %q: write 1s to 20s, as a job's lease lives for 60s." .Values.timing.heartbeat) -}}
{{- end -}}
{{- if not (regexMatch "^([1-9]|[1-8][0-9]|90)s$" .Values.timing.costTimeout) -}}
{{- fail (printf "timing.costTimeout is %q: write 1s to 90s, as jobs wait for it." .Values.timing.costTimeout) -}}
{{- end -}}
{{- range $name := list "startupJitter" "lockTimeout" "planCancelGrace" "applyCancelGrace" "gitTimeout" "initTimeout" "planTimeout" "applyTimeout" "silenceTimeout" -}}
{{- $time := get $.Values.timing $name -}}
{{- if not (regexMatch "^([0-9]+[smh])+$" $time) -}}
{{- fail (printf "timing.%s is %q: write a time such as 90s, 10m or 1h30m." $name $time) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[-._a-zA-Z0-9]+$" .Values.infracost.secretKey) -}}
{{- fail (printf "infracost.secretKey is %q: write the name of a key in infracost.existingSecret." .Values.infracost.secretKey) -}}
{{- end -}}
{{- if not (regexMatch "^([0-9]+[smh])+$" .Values.hooks.timeout) -}}
{{- fail (printf "hooks.timeout is %q: write a time such as 90s, 10m or 1h30m." .Values.hooks.timeout) -}}
{{- end -}}
{{- with .Values.hooks.dir -}}
{{- if not (hasPrefix "/" .) -}}
{{- fail (printf "hooks.dir is %q: write the whole path of a directory that extraVolumeMounts brings." .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.terraformDir -}}
{{- if not (hasPrefix "/" .) -}}
{{- fail (printf "terraformDir is %q: write the whole path of a directory that extraVolumeMounts brings." .) -}}
{{- end -}}
{{- end -}}
{{- range .Values.registryTokens.hosts -}}
{{- if not (regexMatch "^[a-z0-9][a-z0-9.-]*[a-z0-9]$" .) -}}
{{- fail (printf "registryTokens.hosts holds %q: write names of hosts as the keys of the Secret, such as app.terraform.io." .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.registryTokens.hosts (not .Values.registryTokens.existingSecret) -}}
{{- fail "registryTokens.hosts needs registryTokens.existingSecret: a Secret with a token for each of them, under the name of the host." -}}
{{- end -}}
{{- with .Values.terraformConfig -}}
{{- if not (hasPrefix "/" .) -}}
{{- fail (printf "terraformConfig is %q: write the whole path of a file that extraVolumeMounts brings." .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Values that are right one by one and wrong together. */ -}}
{{- define "tendril-agent.checkPods" -}}
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
{{- if and .Values.keda.enabled (lt (int .Values.shutdown.grace) 1800) -}}
{{- fail (printf "keda.enabled needs a shutdown.grace of at least 1800, it is %d: scaling down stops the agent with the highest number, and its running apply may go on for two thirds of the grace." (int .Values.shutdown.grace)) -}}
{{- end -}}
{{- if not (include "tendril-agent.inPods" .) -}}
{{- $memory := include "tendril-agent.mebibytes" (dig "limits" "memory" "" .Values.resources) -}}
{{- if $memory -}}
{{- if lt (int64 $memory) (mul 1024 .Values.concurrency) -}}
{{- fail (printf "resources.limits.memory is %v with a concurrency of %d: each job needs 1Gi, and where memory runs out the kernel ends the agent together with every apply. Raise it to %dGi or more, or lower concurrency." .Values.resources.limits.memory (int .Values.concurrency) (add1 .Values.concurrency)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.workLimit .Values.persistence.enabled -}}
{{- if ge (include "tendril-agent.mebibytes" (trimSuffix "B" .Values.workLimit) | int64) (include "tendril-agent.mebibytes" .Values.persistence.size | int64) -}}
{{- fail (printf "workLimit is %s and persistence.size %s: a limit that the volume cannot reach is none. Lower it, or leave it out: it is 70 %% of the size then." .Values.workLimit .Values.persistence.size) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The agent refuses these at its start as well; checked here, nothing is installed that cannot run. */ -}}
{{- define "tendril-agent.checkState" -}}
{{- $instead := dict "access_key" "AWS_ACCESS_KEY_ID" "secret_key" "AWS_SECRET_ACCESS_KEY" "token" "AWS_SESSION_TOKEN" "sse_customer_key" "AWS_SSE_CUSTOMER_KEY" "username" "TF_HTTP_USERNAME" "password" "TF_HTTP_PASSWORD" "client_private_key_pem" "TF_HTTP_CLIENT_PRIVATE_KEY_PEM" "conn_str" "PG_CONN_STR" -}}
{{- range $name, $_ := .Values.state.config -}}
{{- with get $instead $name -}}
{{- fail (printf "state.config.%s is a credential and would end up in saved plans: take it out, and set %s in extraEnv, from a Secret." $name .) -}}
{{- end -}}
{{- end -}}
{{- $isInSecret := include "tendril-agent.extra" (list .Values.extraEnv "TENDRIL_STATE_CONFIG") -}}
{{- if include "tendril-agent.inPods" . -}}
{{- if ne $isInSecret (include "tendril-agent.extra" (list .Values.runs.extraEnv "TENDRIL_STATE_CONFIG")) -}}
{{- fail "TENDRIL_STATE_CONFIG is in one of extraEnv and runs.extraEnv: with launcher kubernetes it belongs in both, as the agent and its runs must name the same state." -}}
{{- end -}}
{{- end -}}
{{- if not $isInSecret -}}
{{- range $backend, $needed := dict "s3" "bucket" "http" "address" -}}
{{- if and (eq $.Values.state.backend $backend) (not (hasKey $.Values.state.config $needed)) -}}
{{- fail (printf "state.backend %s needs state.config.%s." $backend $needed) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkNetwork" -}}
{{- if .Values.networkPolicy.enabled -}}
{{- range $who := list "serviceMonitor" "podMonitor" "keda" -}}
{{- if and (get $.Values $who).enabled (not $.Values.networkPolicy.metricsFrom) -}}
{{- fail (printf "%s.enabled needs networkPolicy.metricsFrom: without it nobody may read the metrics. For instance [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]." $who) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.state.backend "pg") (not .Values.networkPolicy.extraEgress) (eq (toJson .Values.networkPolicy.egressPorts) "[443]") -}}
{{- fail "state.backend pg needs a way to the database: add its port to networkPolicy.egressPorts ([443, 5432]), or a rule to networkPolicy.extraEgress." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tendril-agent.checkEnvironment" -}}
{{- $set := dict -}}
{{- range include (include "tendril-agent.inPods" . | empty | ternary "tendril-agent.environment" "tendril-agent.dispatcherEnvironment") . | fromYamlArray -}}
{{- $_ := set $set .name "the chart has a value for it" -}}
{{- end -}}
{{- range $variable := .Values.extraEnv -}}
{{- with get $set .name -}}
{{- fail (printf "extraEnv: %s would be set twice: %s." $variable.name .) -}}
{{- end -}}
{{- $_ := set $set .name "it is there already" -}}
{{- end -}}
{{- end -}}

{{- /* Whether there is a variable: a list of its environment and its name. */ -}}
{{- define "tendril-agent.extra" -}}
{{- $name := last . -}}
{{- range first . -}}
{{- if eq .name $name -}}true{{- end -}}
{{- end -}}
{{- end -}}
