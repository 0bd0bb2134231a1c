variable "name" {
  description = "Who is greeted."
  type        = string

  validation {
    condition     = can(regex("^[^[:cntrl:]]{1,100}$", var.name))
    error_message = "The name must have 1 to 100 characters, on one line."
  }
}

variable "greeting" {
  description = "The greeting."
  type        = string
  default     = "Hello"

  validation {
    condition     = can(regex("^[A-Za-z' ]{1,40}$", var.greeting))
    error_message = "The greeting must be 1 to 40 letters, spaces or apostrophes."
  }
}

variable "lines" {
  description = "How many lines are printed, spread over about three seconds."
  type        = number
  default     = 12

  validation {
    condition     = var.lines >= 1 && var.lines <= 100000 && floor(var.lines) == var.lines
    error_message = "The number of lines must be a whole number from 1 to 100000."
  }
}
