variable "name" {
  description = "Name of the instance: letters, digits and single hyphens."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.name))
    error_message = "Must be lower-case letters, digits and single hyphens between them, and begin with a letter."
  }

  validation {
    condition     = can(regex("^.{2,51}$", var.name))
    error_message = "Must have 2 to 51 characters."
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

variable "vpc_id" {
  description = "The VPC of the subnets."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc_id))
    error_message = "Must be the id of a VPC, such as vpc-0a1b2c3d."
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

variable "client_security_group_ids" {
  description = "Security groups whose members may connect. Without any nobody can."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for item in var.client_security_group_ids : can(regex("^sg-[0-9a-f]+$", item))])
    error_message = "Each must be the id of a security group, such as sg-0a1b2c3d."
  }

  validation {
    condition     = length(var.client_security_group_ids) <= 20
    error_message = "Must have at most 20."
  }
}

variable "engine_version" {
  description = "Major version. Minor ones follow by themselves."
  type        = string
  default     = "17"
  nullable    = false

  validation {
    condition     = contains(["15", "16", "17", "18"], var.engine_version)
    error_message = "Must be one of: 15, 16, 17, 18."
  }
}

variable "instance_class" {
  description = "Size of the machine."
  type        = string
  default     = "db.t4g.medium"
  nullable    = false

  validation {
    condition     = can(regex("^db[.][a-z0-9-]+[.][a-z0-9]+$", var.instance_class))
    error_message = "Must be an instance class, such as db.t4g.medium."
  }
}

variable "storage_gib" {
  description = "Storage at the start."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.storage_gib >= 20 && var.storage_gib <= 65536 && floor(var.storage_gib) == var.storage_gib
    error_message = "Must be a whole number from 20 to 65536."
  }
}

variable "max_storage_gib" {
  description = "How far storage may grow by itself: at least a tenth more than storage_gib, or 0 for not at all. Without it, twice the storage and at least 100."
  type        = number
  default     = null

  validation {
    condition     = var.max_storage_gib == null ? true : var.max_storage_gib >= 0 && var.max_storage_gib <= 65536 && floor(var.max_storage_gib) == var.max_storage_gib
    error_message = "Must be a whole number from 0 to 65536."
  }

  # RDS refuses a limit that is nearer.
  validation {
    condition     = var.max_storage_gib == null ? true : var.max_storage_gib == 0 || var.max_storage_gib >= ceil(var.storage_gib * 1.1)
    error_message = "Must be at least a tenth more than storage_gib (${ceil(var.storage_gib * 1.1)}), or 0 for storage that does not grow."
  }
}

variable "database" {
  description = "Name of the first database."
  type        = string
  default     = "app"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,62}$", var.database))
    error_message = "Must have 1 to 63 lower-case letters, digits and underscores, and begin with a letter."
  }
}

variable "username" {
  description = "Name of the administrator."
  type        = string
  default     = "administrator"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,62}$", var.username))
    error_message = "Must have 1 to 63 lower-case letters, digits and underscores, and begin with a letter."
  }
}

variable "password" {
  description = "Password of the administrator; it is not stored in the state. Better leave it out: then RDS makes one, stores it in Secrets Manager and changes it each week."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.password == null || can(regex("^[!#-.0-?A-~]{16,128}$", var.password))
    error_message = "Must have 16 to 128 printable characters other than space, quotation mark, / and @."
  }
}

variable "password_version" {
  description = "Raise it by one for a changed password to be set."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.password_version >= 1 && var.password_version <= 1000000 && floor(var.password_version) == var.password_version
    error_message = "Must be a whole number from 1 to 1000000."
  }
}

variable "multi_az" {
  description = "Keep a standby in another availability zone."
  type        = bool
  default     = true
  nullable    = false
}

variable "apply_immediately" {
  description = "Apply changes that interrupt the database at once, instead of in the next maintenance window."
  type        = bool
  default     = false
  nullable    = false
}

variable "backup_days" {
  description = "How long automatic backups are stored."
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35 && floor(var.backup_days) == var.backup_days
    error_message = "Must be a whole number from 1 to 35."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the database."
  type        = bool
  default     = true
  nullable    = false
}

variable "final_snapshot" {
  description = "Take a snapshot, called like the instance with -last behind it, before the database is deleted."
  type        = bool
  default     = true
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts storage, backups and the password. Without it RDS uses the account's own."
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
