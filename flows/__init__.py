"""When and where the pipeline runs: configuration, plan, Prefect flows and Ray workers."""
