"""What has no Ray in it and every room needs."""
