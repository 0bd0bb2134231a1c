variable "name" {
  description = "Name of the group. What cannot be changed in place follows as eight letters."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}[a-z0-9]$", var.name))
    error_message = "Must have 2 to 41 lower-case letters, digits and hyphens, and begin with a letter."
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

variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$", var.cluster_name))
    error_message = "Must be the name of an EKS cluster."
  }
}

variable "subnet_ids" {
  description = "Private subnets that nodes are placed in."
  type        = list(string)
  nullable    = false

  validation {
    condition     = alltrue([for item in var.subnet_ids : can(regex("^subnet-[0-9a-f]+$", item))])
    error_message = "Each must be the id of a subnet, such as subnet-0a1b2c3d."
  }

  validation {
    condition     = length(var.subnet_ids) >= 1
    error_message = "Must have at least 1."
  }

  validation {
    condition     = length(var.subnet_ids) <= 16
    error_message = "Must have at most 16."
  }
}

variable "architecture" {
  description = "x86_64, or arm64 (Graviton). The instance types must be of it."
  type        = string
  default     = "arm64"
  nullable    = false

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "Must be one of: x86_64, arm64."
  }
}

variable "instance_types" {
  description = "Types that may be used; several of one size make spot capacity last."
  type        = list(string)
  default     = ["m7g.large"]
  nullable    = false

  validation {
    condition     = alltrue([for item in var.instance_types : can(regex("^[a-z0-9-]+[.][a-z0-9-]+$", item))])
    error_message = "Each must be an instance type, such as m7g.large."
  }

  validation {
    condition     = length(var.instance_types) >= 1
    error_message = "Must have at least 1."
  }

  validation {
    condition     = length(var.instance_types) <= 20
    error_message = "Must have at most 20."
  }
}

variable "capacity" {
  description = "ON_DEMAND, or SPOT, which is cheaper and may be taken away. Not for nodes that run the Tendril agent."
  type        = string
  default     = "ON_DEMAND"
  nullable    = false

  validation {
    condition     = contains(["ON_DEMAND", "SPOT"], var.capacity)
    error_message = "Must be one of: ON_DEMAND, SPOT."
  }
}

variable "min_size" {
  description = "Fewest nodes."
  type        = number
  default     = 2
  nullable    = false

  validation {
    condition     = var.min_size >= 0 && var.min_size <= 450 && floor(var.min_size) == var.min_size
    error_message = "Must be a whole number from 0 to 450."
  }
}

variable "max_size" {
  description = "Most nodes."
  type        = number
  default     = 6
  nullable    = false

  validation {
    condition     = var.max_size >= 1 && var.max_size <= 450 && floor(var.max_size) == var.max_size
    error_message = "Must be a whole number from 1 to 450."
  }
}

variable "desired_size" {
  description = "Nodes, at least min_size. Without it, as many as there are, which an autoscaler may decide; min_size at the start."
  type        = number
  default     = null

  validation {
    condition     = var.desired_size == null ? true : var.desired_size >= 0 && var.desired_size <= 450 && floor(var.desired_size) == var.desired_size
    error_message = "Must be a whole number from 0 to 450."
  }
}

variable "disk_gib" {
  description = "Size of each node's disk."
  type        = number
  default     = 50
  nullable    = false

  validation {
    condition     = var.disk_gib >= 20 && var.disk_gib <= 16384 && floor(var.disk_gib) == var.disk_gib
    error_message = "Must be a whole number from 20 to 16384."
  }
}

variable "labels" {
  description = "Kubernetes labels of the nodes."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "tags" {
  description = "Tags of all resources, beside those that Tendril sets."
  type        = map(string)
  default     = {}
  nullable    = false
}
