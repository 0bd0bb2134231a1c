output "url" {
  description = "Where the site is."
  value       = "https://${length(var.domain_names) > 0 ? var.domain_names[0] : aws_cloudfront_distribution.this.domain_name}"
}

output "bucket" {
  description = "Where its files go: aws s3 sync dist s3://…"
  value       = aws_s3_bucket.this.id
}

output "distribution_id" {
  description = "For an invalidation after a release."
  value       = aws_cloudfront_distribution.this.id
}

output "domain_name" {
  description = "CloudFront's domain, which records of your own point to."
  value       = aws_cloudfront_distribution.this.domain_name
}
