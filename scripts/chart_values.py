"""Values for the Helm chart that check-chart.py tries: those that it takes, and those that it refuses."""

KEY = "tdl_" + "0" * 65
FROM_SECRET = {"existingSecret": "mine"}
MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
SCRAPED = {"networkPolicy": {"metricsFrom": MONITORING}}
KEDA = SCRAPED | {"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}, "shutdown": {"grace": 3000}}
REMOTE = {"state": {"backend": "s3", "config": {"bucket": "b", "region": "eu-central-1"}}}
STATE_CONFIG = {"name": "TENDRIL_STATE_CONFIG", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
DIGEST = "sha256:" + "0" * 64

# Each job is a pod: what that needs beside a Secret and a state.
RULES = [
    {"stacks": ["prod", "prod-*"], "templates": ["vpc"], "serviceAccount": "runs-prod", "nodeSelector": {"pool": "prod"},
     "tolerations": [{"key": "runs", "operator": "Exists"}], "resources": {"requests": {"cpu": 1.5}, "limits": {"cpu": 4, "memory": 4294967296}}},
    {"stacks": ["staging"], "serviceAccount": "runs-staging"},
    {"stacks": ["*"], "serviceAccount": "runs"},
]
PODS = FROM_SECRET | REMOTE | {"launcher": "kubernetes", "runs": {"serviceAccountMap": RULES[2:]}}


def pods(**runs):
    """Runs as pods, with these values of `runs`."""
    return PODS | {"runs": {"serviceAccountMap": RULES[2:]} | runs}


CASES = {
    "the least": FROM_SECRET,
    "what `grape up` installs": {"existingSecret": "tendril-agent", "tokenFrom": "file"},
    "a secret made by the chart": {"agentToken": KEY, "supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}},
    "all but the token among the values": FROM_SECRET | {"supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}},
    "a part of a parent chart": FROM_SECRET | {"enabled": True, "global": {"a": 1}},
    "state in PostgreSQL": FROM_SECRET | {"state": {"backend": "pg"}, "networkPolicy": {"egressPorts": [443, 5432]}},
    "settings of a state from a Secret": FROM_SECRET
    | {"state": {"backend": "s3"}, "extraEnv": [STATE_CONFIG]},
    "many jobs": FROM_SECRET | {"concurrency": 8, "resources": {"limits": {"memory": "10G"}}},
    "no limit of memory": FROM_SECRET | {"concurrency": 64, "resources": {"limits": None}},
    "a small volume": FROM_SECRET | {"persistence": {"size": "7.5Gi"}},
    "a limit of one's own": FROM_SECRET | {"workLimit": "15GiB"},
    "its clock": FROM_SECRET | {"timing": {"heartbeat": "10s", "lockTimeout": "5m", "applyCancelGrace": "1h30m"}},
    "token from a file": FROM_SECRET | {"tokenFrom": "file"},
    "no cost estimates": FROM_SECRET | {"infracost": {"enabled": False, "existingSecret": "prices"}},
    "several replicas": FROM_SECRET | REMOTE | {"replicas": 3, "podDisruptionBudget": {"maxUnavailable": "50%"}},
    "no volume": FROM_SECRET | {"persistence": {"enabled": False}},
    "an own volume": FROM_SECRET | {"persistence": {"existingClaim": "mine"}},
    "IRSA": FROM_SECRET | {"aws": {"roleArn": "arn:aws:iam::123456789012:role/agent", "region": "eu-central-1"}},
    "own service account": FROM_SECRET | {"serviceAccount": {"create": False, "name": "mine"}},
    "nothing around it": FROM_SECRET | {"podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "everything": FROM_SECRET
    | REMOTE
    | {
        "nameOverride": "runner",
        "image": {"digest": DIGEST},
        "imagePullSecrets": [{"name": "registry"}],
        "terminationGracePeriodSeconds": 3600,
        "shutdown": {"grace": 3000},
        "terraformConfig": "/etc/terraform/config.tfrc",
        "terraformDir": "/opt/terraform",
        "registryTokens": {"existingSecret": "registries", "hosts": ["app.terraform.io", "xn--bcher-kva.example"]},
        "keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090", "authenticationRef": "prometheus"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "egressPorts": [443, 22],
            "metricsFrom": MONITORING,
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        },
        "persistence": {"storageClass": "gp3", "size": "20Gi"},
        "infracost": {"existingSecret": "prices", "secretKey": "token"},
        "git": {"hosts": ["github.com/acme/*", "git.example.org:8443"], "tokenFor": ["github.com/acme/*"], "token": True, "user": "oauth2"},
        "hooks": {"dir": "/etc/tendril/hooks", "timeout": "2m"},
        "terraformEnv": ["GITHUB_TOKEN"],
        "extraEnv": [{"name": "GITHUB_TOKEN", "valueFrom": {"secretKeyRef": {"name": "github", "key": "token"}}}],
        "extraVolumes": [{"name": "authority", "configMap": {"name": "authority"}}],
        "extraVolumeMounts": [{"name": "authority", "mountPath": "/etc/authority", "readOnly": True}],
        "priorityClassName": "agents",
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "agents", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    },
    "a pod for each run": PODS,
    "a pod for each run, and one that stands by": PODS | {"replicas": 2, "concurrency": 200},
    "three rules": pods(serviceAccountMap=RULES),
    "runs of three accounts with roles in their own namespace": pods(
        serviceAccountMap=RULES,
        namespace="runs",
        serviceAccounts={"annotations": {"runs-prod": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/runs-prod"}}},
    ),
    "no right to make Roles and service accounts": pods(serviceAccounts={"create": False}) | {"rbac": {"create": False}},
    "pods that may go anywhere": PODS | {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
    "a key made by the chart, for pods": {name: value for name, value in PODS.items() if name != "existingSecret"}
    | {"agentToken": KEY, "supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}},
    "pods whose state's settings are in a Secret": pods(extraEnv=[STATE_CONFIG]) | {"state": {"backend": "s3"}, "extraEnv": [STATE_CONFIG]},
    "plans on a volume": pods(planVolumeClaim="plans"),
    "pods by a policy": pods(serviceAccountMap=RULES, namespace="runs") | {"admissionPolicy": {"enabled": True}},
    "everything in pods": PODS
    | {
        "replicas": 3,
        "concurrency": 1000,
        "nameOverride": "r" * 60,
        "admissionPolicy": {"enabled": True},
        "image": {"digest": DIGEST},
        "imagePullSecrets": [{"name": "registry"}],
        "tokenFrom": "file",
        "terraformConfig": "/etc/terraform/config.tfrc",
        "terraformEnv": ["GITHUB_TOKEN"],
        "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "networkPolicy": {"egressPorts": [443, 5432], "apiServerPorts": [6443], "metricsFrom": MONITORING},
        "infracost": {"existingSecret": "prices"},
        "git": {"hosts": ["github.com/acme/*"], "tokenFor": ["github.com/acme/*"], "token": True, "user": "oauth2"},
        "hooks": {"dir": "/etc/tendril/hooks", "timeout": "2m"},
        "aws": {"region": "eu-central-1"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumes": [{"name": "authority", "configMap": {"name": "authority"}}],
        "extraVolumeMounts": [{"name": "authority", "mountPath": "/etc/authority", "readOnly": True}],
        "dispatcher": {"resources": {"limits": {"memory": "512Mi"}}, "leaseDuration": "30s", "leaseRenewDeadline": "20s"},
        "runs": {
            "serviceAccountMap": RULES,
            "image": "registry.example.com/tendril-agent:own",
            "namespace": "runs",
            "planVolumeClaim": "plans",
            "startDeadline": "20m",
            "keepFinished": "1h30m",
            "resources": {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"memory": 4294967296, "cpu": None}},
            "extraEnv": [
                {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
                {"name": "GITHUB_TOKEN", "valueFrom": {"secretKeyRef": {"name": "github", "key": "token"}}},
            ],
            "extraVolumes": [
                {"name": "tendril-home", "emptyDir": {"medium": "Memory"}},
                {"name": "hooks", "configMap": {"name": "hooks", "defaultMode": 0o555}},
            ],
            "extraVolumeMounts": [{"name": "hooks", "mountPath": "/etc/tendril/hooks", "readOnly": True}],
            "podDisruptionBudget": {"enabled": True},
            "priorityClassName": "runs",
            "podAnnotations": {"a": "b"},
            "podLabels": {"team": "platform", "app.kubernetes.io/instance": "other"},
            "nodeSelector": {"kubernetes.io/arch": "arm64"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
        },
    },
}

MADE = {"agentToken": KEY, "supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}}
# Values that are wrong in a way that _checks.tpl has a sentence for, and a part of that sentence. Secrets are not to be repeated.
REFUSED = {
    "no secret and nothing for one": ({}, "set existingSecret to the name of a Secret"),
    "half of what a secret needs": ({"agentToken": KEY}, "or set all of agentToken, supabase.url"),
    "a token that is none": (MADE | {"agentToken": "s3cret"}, "agentToken is neither an API key"),
    "a key that was cut": (MADE | {"agentToken": "tdl_s3cret"}, "copy it again, whole"),
    "an address that is none": (MADE | {"supabase": {"url": "a.supabase.co", "publishableKey": "k"}}, "supabase.url is not the URL of a project"),
    "an address with a password": (MADE | {"supabase": {"url": "https://u:s3cret@a.co", "publishableKey": "k"}}, "without a user name"),
    "a secret key": (MADE | {"supabase": {"url": "https://a.co", "publishableKey": "sb_secret_s3cret"}}, "roll the secret key"),
    "a key with a line break": (MADE | {"supabase": {"url": "https://a.co", "publishableKey": "s3cret\n"}}, "holds a space or a line break"),
    "a name that is none": (FROM_SECRET | {"nameOverride": "Runner_"}, 'nameOverride is "Runner_"'),
    "a digest that is none": (FROM_SECRET | {"image": {"digest": "latest"}}, "A tag goes to image.tag"),
    "a size that is none": (FROM_SECRET | {"persistence": {"size": "10 GB"}}, 'persistence.size is "10 GB"'),
    "a variable of no name": (FROM_SECRET | {"terraformEnv": ["A B"]}, 'terraformEnv holds "A B"'),
    "a role that is a name": (FROM_SECRET | {"aws": {"roleArn": "agent"}}, "write the role's whole ARN"),
    "a region of another cloud": (FROM_SECRET | {"aws": {"region": "westeurope"}}, "aws.region is"),
    "a share of agents that is none": (FROM_SECRET | {"podDisruptionBudget": {"maxUnavailable": "half"}}, "a percentage such as 50%"),
    "a time that is none": (FROM_SECRET | {"serviceMonitor": {"interval": "often"}}, "serviceMonitor.interval is"),
    "a Prometheus without a scheme": (FROM_SECRET | {"keda": {"prometheusAddress": "prometheus:9090"}}, "keda.prometheusAddress is"),
    "a limit without a unit": (FROM_SECRET | {"spoolLimit": "much"}, 'spoolLimit is "much"'),
    "a name of a key that is none": (FROM_SECRET | {"infracost": {"secretKey": "a key"}}, 'infracost.secretKey is "a key"'),
    "an estimate that holds up jobs": (FROM_SECRET | {"timing": {"costTimeout": "5m"}}, 'timing.costTimeout is "5m"'),
    "a time that is none for a hook": (FROM_SECRET | {"hooks": {"timeout": "soon"}}, 'hooks.timeout is "soon"'),
    "hooks beside nothing": (FROM_SECRET | {"hooks": {"dir": "hooks"}}, 'hooks.dir is "hooks"'),
    "versions beside nothing": (FROM_SECRET | {"terraformDir": "versions"}, 'terraformDir is "versions"'),
    "a registry that is none": (FROM_SECRET | {"registryTokens": {"existingSecret": "s", "hosts": ["https://a"]}}, 'registryTokens.hosts holds "https://a"'),
    "registries without a Secret": (FROM_SECRET | {"registryTokens": {"hosts": ["a.example"]}}, "needs registryTokens.existingSecret"),
    "a configuration beside nothing": (FROM_SECRET | {"terraformConfig": "config.tfrc"}, 'terraformConfig is "config.tfrc"'),
    "a grace that is too short for the agent's": (
        FROM_SECRET | {"shutdown": {"grace": 900}, "terminationGracePeriodSeconds": 959},
        "must be at least shutdown.grace and 60 s: 960",
    ),
    "replicas with local state": (FROM_SECRET | {"replicas": 2}, "set state.backend to s3, http or pg"),
    "replicas with one volume": (FROM_SECRET | REMOTE | {"replicas": 2, "persistence": {"existingClaim": "c"}}, "each replica needs its own"),
    "credentials of the state among the values": (
        FROM_SECRET | {"state": {"backend": "s3", "config": {"bucket": "b", "secret_key": "s3cret"}}},
        "state.config.secret_key is a credential .* set AWS_SECRET_ACCESS_KEY in extraEnv",
    ),
    "a user's name of the state among the values": (
        FROM_SECRET | {"state": {"backend": "http", "config": {"address": "https://s/{key}", "username": "u"}}},
        "state.config.username is a credential .* set TF_HTTP_USERNAME in extraEnv",
    ),
    "a key of the state among the values": (
        FROM_SECRET | {"state": {"backend": "http", "config": {"address": "https://s/{key}", "client_private_key_pem": "p"}}},
        "set TF_HTTP_CLIENT_PRIVATE_KEY_PEM",
    ),
    "S3 without a bucket": (FROM_SECRET | {"state": {"backend": "s3"}}, "state.backend s3 needs state.config.bucket"),
    "HTTP without an address": (FROM_SECRET | {"state": {"backend": "http"}}, "state.backend http needs state.config.address"),
    "PostgreSQL behind a closed port": (FROM_SECRET | {"state": {"backend": "pg"}}, "networkPolicy.egressPorts"),
    "KEDA without Prometheus": (
        FROM_SECRET | REMOTE | KEDA | {"keda": {"enabled": True}},
        "keda.enabled needs keda.prometheusAddress",
    ),
    "KEDA with local state": (FROM_SECRET | KEDA, "state.backend"),
    "KEDA upside down": (FROM_SECRET | REMOTE | KEDA | {"keda": KEDA["keda"] | {"minReplicas": 6}}, "keda.maxReplicas is less"),
    "KEDA whose metrics nobody may read": (
        FROM_SECRET | REMOTE | KEDA | {"networkPolicy": {}},
        "keda.enabled needs networkPolicy.metricsFrom",
    ),
    "KEDA with a short grace": (FROM_SECRET | REMOTE | KEDA | {"shutdown": {"grace": 1799}}, "at least 1800, it is 1799"),
    "metrics that nobody may read": (
        FROM_SECRET | {"serviceMonitor": {"enabled": True}},
        "serviceMonitor.enabled needs networkPolicy.metricsFrom",
    ),
    "more jobs than memory": (FROM_SECRET | {"concurrency": 4}, "resources.limits.memory is 3Gi with a concurrency of 4.* 5Gi"),
    "memory in another unit": (FROM_SECRET | {"resources": {"limits": {"memory": "2000M"}}}, "resources.limits.memory is 2000M"),
    "a limit that is never reached": (FROM_SECRET | {"workLimit": "20GiB"}, "workLimit is 20GiB and persistence.size 20Gi"),
    "a limit in Kubernetes' unit": (FROM_SECRET | {"workLimit": "10Gi"}, "write a size as the agent does, such as 14GiB"),
    "a heartbeat slower than the lease": (FROM_SECRET | {"timing": {"heartbeat": "30s"}}, "timing.heartbeat is \"30s\""),
    "a time without a unit": (FROM_SECRET | {"timing": {"lockTimeout": "120"}}, "timing.lockTimeout is \"120\""),
    "a variable that the chart sets": (
        FROM_SECRET | {"extraEnv": [{"name": "TENDRIL_STATE_BACKEND", "value": "kubernetes"}]},
        "extraEnv: TENDRIL_STATE_BACKEND would be set twice: the chart has a value for it",
    ),
    "a region twice": (
        FROM_SECRET | {"aws": {"region": "eu-central-1"}, "extraEnv": [{"name": "AWS_REGION", "value": "x"}]},
        "AWS_REGION would be set twice",
    ),
    "a variable twice": (
        FROM_SECRET | {"extraEnv": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]},
        "A would be set twice: it is there already",
    ),
    "a role for nobody": (
        FROM_SECRET | {"aws": {"roleArn": "arn:aws:iam::123456789012:role/a"}, "serviceAccount": {"create": False}},
        "aws.roleArn",
    ),
    "a Git host that is none": (FROM_SECRET | {"git": {"hosts": ["https://github.com"]}}, "git"),
    "a Git limit that is no size": (FROM_SECRET | {"git": {"limit": "1G"}}, 'git.limit is "1G"'),
    "a Git token for no host": (FROM_SECRET | {"git": {"token": True}}, "set git.hosts"),
    "a Git token without a Secret": (
        {"agentToken": KEY, "supabase": {"url": "https://a", "publishableKey": "k"}, "git": {"hosts": ["github.com"], "token": True}},
        "git.token needs existingSecret",
    ),
    "a secret in plain environment": (FROM_SECRET | {"extraEnv": [{"name": "TENDRIL_AGENT_TOKEN", "value": "s3cret"}]}, "extraEnv: TENDRIL_AGENT_TOKEN would be set twice"),
    "rules without pods": (FROM_SECRET | {"runs": {"serviceAccountMap": RULES}}, 'launcher is "in-process": set launcher to kubernetes'),
    "a policy for an agent without pods": (FROM_SECRET | {"admissionPolicy": {"enabled": True}}, "admissionPolicy.enabled is for launcher kubernetes"),
    "more jobs than one agent runs": (FROM_SECRET | {"concurrency": 65}, "concurrency is 65: one agent runs at most 64 jobs"),
    "a Service whose name begins with a digit": (FROM_SECRET | {"nameOverride": "1runner"}, "Service called 1runner"),
    "pods with local state": (PODS | {"state": {"backend": "local"}}, "state that outlives the pod"),
    "pods and KEDA": (PODS | KEDA, "keda.enabled is of no use"),
    "pods and a monitor of a Service": (PODS | SCRAPED | {"serviceMonitor": {"enabled": True}}, "set podMonitor.enabled"),
    "pods that Prometheus may not read": (PODS | {"podMonitor": {"enabled": True}}, "podMonitor.enabled needs networkPolicy.metricsFrom"),
    "a role for the pod that runs nothing": (PODS | {"aws": {"roleArn": "arn:aws:iam::123456789012:role/a"}}, "set it for each service account"),
    "a limit of a disk that is not there": (PODS | {"workLimit": "5GiB"}, "workLimit has no effect"),
    "a volume that is not mounted": (PODS | {"persistence": {"existingClaim": "mine"}}, "persistence.existingClaim has no effect"),
    "a JWT for every run": (
        {name: value for name, value in PODS.items() if name != "existingSecret"}
        | {"agentToken": "e30.s3cret.x", "supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}},
        "launcher kubernetes needs an API key",
    ),
    "pods without rules": (pods(serviceAccountMap=[]), "needs runs.serviceAccountMap"),
    "an account that is none": (pods(serviceAccountMap=[{"stacks": ["*"], "serviceAccount": "Runs"}]), 'rule 1: "Runs" is no name'),
    "the agent's own account": (
        pods(serviceAccountMap=[RULES[1], {"stacks": ["*"], "serviceAccount": "tendril-agent"}]),
        "rule 2: tendril-agent is the agent's own service account",
    ),
    "the account of plans": (
        pods(serviceAccountMap=[{"stacks": ["*"], "serviceAccount": "tendril-agent-plans"}]),
        "tendril-agent-plans is the service account with which plans are stored",
    ),
    "a resource that is none": (pods(resources={"limits": {"ram": "1Gi"}}), "runs.resources: limits.ram is no resource"),
    "a quantity that is none": (
        pods(serviceAccountMap=[RULES[1] | {"resources": {"requests": {"memory": "1 GB"}}}]),
        'rule 1: requests.memory is "1 GB"',
    ),
    "annotations of nobody": (pods(serviceAccounts={"annotations": {"prod": {"a": "b"}}}), "which no rule of runs.serviceAccountMap names: there are runs."),
    "annotations of somebody else's accounts": (
        pods(serviceAccounts={"create": False, "annotations": {"runs": {"a": "b"}}}),
        "annotate yours yourself",
    ),
    "a namespace that is none": (pods(namespace="Runs"), 'runs.namespace is "Runs"'),
    "an image that is none": (pods(image="a b"), 'runs.image is "a b"'),
    "a deadline that is too short": (pods(startDeadline="9s"), 'runs.startDeadline is "9s": write a time of at least 10s'),
    "a deadline of nothing": (pods(keepFinished="0m"), 'runs.keepFinished is "0m"'),
    "a lease that is too short": (PODS | {"dispatcher": {"leaseDuration": "5s"}}, 'dispatcher.leaseDuration is "5s": write a time of at least 10s'),
    "a lease that nobody may renew in time": (
        PODS | {"dispatcher": {"leaseDuration": "30s"}},
        "leaseRenewDeadline is 50s and dispatcher.leaseDuration 30s: it must be less",
    ),
    "a volume of the agent's": (pods(extraVolumes=[{"name": "tendril-plan", "emptyDir": {}}]), "take another name"),
    "a home for a run": (pods(extraEnv=[{"name": "HOME", "value": "/"}]), "HOME cannot be set: the agent gives each run its own"),
    "a key for a run": (pods(extraEnv=[{"name": "TENDRIL_AGENT_TOKEN", "value": "s3cret"}]), "TENDRIL_AGENT_TOKEN cannot be set"),
    "a variable of a run that the chart sets": (pods(extraEnv=[{"name": "TENDRIL_STATE_BACKEND", "value": "pg"}]), "the chart has a value for it"),
    "a variable of the agent that the chart sets": (PODS | {"extraEnv": [{"name": "TENDRIL_LEASE", "value": "a"}]}, "TENDRIL_LEASE would be set twice"),
    "a state that the agent does not know": (
        pods(extraEnv=[STATE_CONFIG]) | {"state": {"backend": "s3"}},
        "it belongs in both",
    ),
    "PostgreSQL for pods behind a closed port": (PODS | {"state": {"backend": "pg"}}, "networkPolicy.egressPorts"),
}
