output "message" {
  description = "The greeting as it was printed."
  value       = "${terraform_data.greeting.output.greeting}, ${terraform_data.greeting.output.name}!"
}

output "fingerprint" {
  description = "A stand-in for a password: Tendril must never show it."
  value       = terraform_data.secret.output
  sensitive   = true
}
