"""Files from object storage: in parallel, resumed, verified."""
