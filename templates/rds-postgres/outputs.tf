output "endpoint" {
  description = "Host and port."
  value       = aws_db_instance.this.endpoint
}

output "database" {
  description = "Name of the first database."
  value       = aws_db_instance.this.db_name
}

output "security_group_id" {
  description = "Security group of the database."
  value       = aws_security_group.this.id
}

output "password_secret_arn" {
  description = "Secret that holds user name and password, when RDS made the password."
  value       = one(aws_db_instance.this.master_user_secret[*].secret_arn)
}
