variable "name" {
  description = "Name of the VPC; resources are named after it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}[a-z0-9]$", var.name))
    error_message = "Must have 2 to 31 lower-case letters, digits and hyphens, and begin with a letter."
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

variable "cidr" {
  description = "IPv4 range of the VPC. Each subnet gets a sixteenth of it."
  type        = string
  default     = "10.0.0.0/16"
  nullable    = false

  validation {
    condition     = can(regex("^([0-9]{1,3}[.]){3}[0-9]{1,3}/(1[6-9]|20)$", var.cidr))
    error_message = "Must be a range such as 10.0.0.0/16, with /16 to /20."
  }
}

variable "zones" {
  description = "Letters of the zones that have subnets. A zone keeps its ranges when others are added. Without any, the region's first three in which EKS can be run."
  type        = list(string)
  default     = null

  validation {
    condition     = var.zones == null || alltrue([for item in coalesce(var.zones, []) : can(regex("^[a-f]$", item))])
    error_message = "Each must be a letter from a to f."
  }

  validation {
    condition     = var.zones == null || length(coalesce(var.zones, [])) >= 2
    error_message = "Must have at least 2."
  }

  validation {
    condition     = var.zones == null || length(coalesce(var.zones, [])) <= 6
    error_message = "Must have at most 6."
  }

  validation {
    condition     = length(distinct(coalesce(var.zones, []))) == length(coalesce(var.zones, []))
    error_message = "Must not have a letter twice."
  }
}

variable "nat" {
  description = "How private subnets reach the internet: not at all, through one gateway, or through one in each zone, which survives the loss of a zone."
  type        = string
  default     = "single"
  nullable    = false

  validation {
    condition     = contains(["none", "single", "per-zone"], var.nat)
    error_message = "Must be one of: none, single, per-zone."
  }
}

variable "flow_log_days" {
  description = "How long flow logs are stored."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([30, 90, 180, 365, 731], var.flow_log_days)
    error_message = "Must be one of: 30, 90, 180, 365, 731."
  }
}

variable "tags" {
  description = "Tags of all resources, beside those that Tendril sets."
  type        = map(string)
  default     = {}
  nullable    = false
}
