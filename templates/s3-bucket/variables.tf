variable "name" {
  description = "Name of the bucket; no other bucket of the world may have it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "Must have 3 to 63 lower-case letters, digits and hyphens."
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

variable "versioning" {
  description = "Keep old versions of objects. Once it was on it can only be suspended."
  type        = bool
  default     = true
  nullable    = false
}

variable "noncurrent_days" {
  description = "After how many days an old version is deleted."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.noncurrent_days >= 1 && var.noncurrent_days <= 3650 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "Must be a whole number from 1 to 3650."
  }
}

variable "expire_days" {
  description = "After how many days an object itself is deleted; 0: never."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.expire_days >= 0 && var.expire_days <= 36500 && floor(var.expire_days) == var.expire_days
    error_message = "Must be a whole number from 0 to 36500."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts objects. Without it S3 uses its own (SSE-S3)."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "Must be the ARN of a KMS key."
  }
}

variable "log_bucket" {
  description = "Bucket that server access logs are written to, below the name of this one. Without it there are none."
  type        = string
  default     = null

  validation {
    condition     = var.log_bucket == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.log_bucket))
    error_message = "Must be the name of a bucket."
  }
}

variable "force_destroy" {
  description = "Let destroy delete the bucket even when objects are in it."
  type        = bool
  default     = false
  nullable    = false
}

variable "tags" {
  description = "Tags of all resources, beside those that Tendril sets."
  type        = map(string)
  default     = {}
  nullable    = false
}
