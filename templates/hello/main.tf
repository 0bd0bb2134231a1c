# Needs no provider and no network: terraform_data and local-exec are part of Terraform and OpenTofu.

terraform {
  required_version = ">= 1.4"
}

resource "terraform_data" "greeting" {
  # A change of any of these runs the greeting again.
  input = {
    name     = var.name
    greeting = var.greeting
    lines    = var.lines
  }
  triggers_replace = [var.name, var.greeting, var.lines]

  provisioner "local-exec" {
    command = "sh \"$SCRIPT\""

    # Values reach the shell as environment, never as part of the command: nothing in them can be run.
    environment = {
      SCRIPT   = "${path.module}/greet.sh"
      NAME     = var.name
      GREETING = var.greeting
      LINES    = var.lines
    }
  }
}

resource "terraform_data" "secret" {
  input = sha256("${var.greeting}, ${var.name}")
}
