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
  description = "Name of the EKS cluster. It must have nodes."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$", var.cluster_name))
    error_message = "Must be the name of an EKS cluster."
  }
}

variable "default_storage_class" {
  description = "Make a default storage class (gp3). Switch it off where the cluster has one of yours."
  type        = bool
  default     = true
  nullable    = false
}

variable "tags" {
  description = "Tags of all resources, beside those that Tendril sets."
  type        = map(string)
  default     = {}
  nullable    = false
}
