"""A real S3 server on this machine, and a proxy in front of it that counts requests and makes the store fail."""
