"""The service: an atlas over HTTP and SQL. It reads through `store` and never writes."""
