variable "name" {
  description = "Name of the cluster."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,49}[a-z0-9]$", var.name))
    error_message = "Must have 2 to 51 lower-case letters, digits and hyphens, and begin with a letter."
  }
}

variable "region" {
  description = "AWS region in which everything is made."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "Must be the name of an AWS region, such as eu-central-1."
  }
}

variable "subnet_ids" {
  description = "Private subnets of at least two availability zones."
  type        = list(string)
  nullable    = false

  validation {
    condition     = alltrue([for item in var.subnet_ids : can(regex("^subnet-[0-9a-f]+$", item))])
    error_message = "Each must be the id of a subnet, such as subnet-0a1b2c3d."
  }

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Must have at least 2."
  }

  validation {
    condition     = length(var.subnet_ids) <= 16
    error_message = "Must have at most 16."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes; it can be raised one step at a time, and never lowered."
  type        = string
  default     = "1.35"
  nullable    = false

  validation {
    condition     = can(regex("^1[.][0-9]{2}$", var.kubernetes_version))
    error_message = "Must be a version such as 1.35."
  }
}

variable "public_access_cidrs" {
  description = "IPv4 ranges from which the API can be reached over the internet. Without any it can be reached from inside alone."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for item in var.public_access_cidrs : can(regex("^([0-9]{1,3}[.]){3}[0-9]{1,3}/([1-9]|[12][0-9]|3[0-2])$", item))])
    error_message = "Each must be a range such as 203.0.113.0/24; the whole internet is not allowed."
  }

  validation {
    condition     = length(var.public_access_cidrs) <= 40
    error_message = "Must have at most 40."
  }
}

variable "private_access_cidrs" {
  description = "IPv4 ranges from which the API can be reached over private addresses, such as those of a VPN or of a peered network."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for item in var.private_access_cidrs : can(regex("^([0-9]{1,3}[.]){3}[0-9]{1,3}/([1-9]|[12][0-9]|3[0-2])$", item))])
    error_message = "Each must be a range such as 10.0.0.0/16; the whole internet is not allowed."
  }

  validation {
    condition     = length(var.private_access_cidrs) <= 40
    error_message = "Must have at most 40."
  }
}

variable "admin_principal_arns" {
  description = "IAM users and roles that are administrators of the cluster, beside whoever makes it."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for item in var.admin_principal_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(user|role)/", item))])
    error_message = "Each must be the ARN of an IAM user or role."
  }

  validation {
    condition     = length(var.admin_principal_arns) <= 50
    error_message = "Must have at most 50."
  }
}

variable "agent_identity" {
  description = "How the Tendril agent in this cluster gets its AWS role: EKS Pod Identity, or IAM roles for service accounts (IRSA)."
  type        = string
  default     = "pod-identity"
  nullable    = false

  validation {
    condition     = contains(["pod-identity", "irsa", "none"], var.agent_identity)
    error_message = "Must be one of: pod-identity, irsa, none."
  }
}

variable "agent_namespace" {
  description = "Namespace that the agent is installed in."
  type        = string
  default     = "tendril"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.agent_namespace))
    error_message = "Must be the name of a namespace."
  }
}

variable "agent_service_account" {
  description = "Service account that the agent runs as: the name of the Helm release."
  type        = string
  default     = "tendril-agent"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.agent_service_account))
    error_message = "Must be the name of a service account."
  }
}

variable "agent_policy_arns" {
  description = "IAM policies of the agent's role: what its templates may do. Without any it may do nothing. More than ten need a raised quota of the account."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for item in var.agent_policy_arns : can(regex("^arn:aws[a-z-]*:iam::(aws|[0-9]{12}):policy/", item))])
    error_message = "Each must be the ARN of an IAM policy."
  }

  validation {
    condition     = length(var.agent_policy_arns) <= 20
    error_message = "Must have at most 20."
  }
}

variable "agent_permissions_boundary_arn" {
  description = "IAM policy beyond which the agent's role never goes, whatever is attached to it."
  type        = string
  default     = null

  validation {
    condition     = var.agent_permissions_boundary_arn == null || can(regex("^arn:aws[a-z-]*:iam::(aws|[0-9]{12}):policy/", var.agent_permissions_boundary_arn))
    error_message = "Must be the ARN of an IAM policy."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the cluster."
  type        = bool
  default     = true
  nullable    = false
}

variable "log_days" {
  description = "How long logs of the control plane are stored."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([30, 90, 180, 365, 731], var.log_days)
    error_message = "Must be one of: 30, 90, 180, 365, 731."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts Kubernetes secrets and logs; CloudWatch Logs must be allowed to use it. Without it one is made. Another key later means another cluster."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "Must be the ARN of a KMS key."
  }
}

variable "tags" {
  description = "Tags of all resources, beside those that Tendril sets."
  type        = map(string)
  default     = {}
  nullable    = false
}
