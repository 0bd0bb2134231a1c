variable "name" {
  description = "Name of the bucket that holds the site; no other bucket of the world may have it."
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

variable "domain_names" {
  description = "Domains of the site. Without any it has the one of CloudFront."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for item in var.domain_names : can(regex("^([*][.])?([a-z0-9]([a-z0-9-]*[a-z0-9])?[.])+[a-z]{2,}$", item))])
    error_message = "Each must be a domain such as www.example.com."
  }

  validation {
    condition     = length(var.domain_names) <= 20
    error_message = "Must have at most 20."
  }
}

variable "certificate_arn" {
  description = "ACM certificate of the domains, in us-east-1. Needed with domains."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:aws[a-z-]*:acm:us-east-1:", var.certificate_arn))
    error_message = "Must be the ARN of an ACM certificate in us-east-1."
  }
}

variable "zone_id" {
  description = "Hosted zone in which records for the domains are made. Without it you make them."
  type        = string
  default     = null

  validation {
    condition     = var.zone_id == null || can(regex("^Z[A-Z0-9]+$", var.zone_id))
    error_message = "Must be the id of a hosted zone, such as Z0123456789ABC."
  }
}

variable "single_page_app" {
  description = "Answer unknown paths with index.html instead of 404.html."
  type        = bool
  default     = false
  nullable    = false
}

variable "price_class" {
  description = "All edge locations, all but the dearest, or North America and Europe alone."
  type        = string
  default     = "PriceClass_100"
  nullable    = false

  validation {
    condition     = contains(["PriceClass_100", "PriceClass_200", "PriceClass_All"], var.price_class)
    error_message = "Must be one of: PriceClass_100, PriceClass_200, PriceClass_All."
  }
}

variable "content_security_policy" {
  description = "Header Content-Security-Policy of each answer."
  type        = string
  default     = "default-src 'self'"
  nullable    = false

  validation {
    condition     = can(regex("^[ -~]+$", var.content_security_policy))
    error_message = "Must be printable characters on one line."
  }
}

variable "hsts_subdomains" {
  description = "Announce to browsers for a year that all subdomains of the site's domains have HTTPS, too. On example.com that binds every other host below it."
  type        = bool
  default     = false
  nullable    = false
}

variable "web_acl_arn" {
  description = "AWS WAF web ACL (global) in front of the site."
  type        = string
  default     = null

  validation {
    condition     = var.web_acl_arn == null || can(regex("^arn:aws[a-z-]*:wafv2:us-east-1:[0-9]{12}:global/webacl/", var.web_acl_arn))
    error_message = "Must be the ARN of a global web ACL."
  }
}

variable "log_bucket" {
  description = "Bucket that CloudFront writes access logs to; its ACLs must be enabled. Without it there are none."
  type        = string
  default     = null

  validation {
    condition     = var.log_bucket == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.log_bucket))
    error_message = "Must be the name of a bucket."
  }
}

variable "force_destroy" {
  description = "Let destroy delete the bucket even when files are in it. Has to be applied before."
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
