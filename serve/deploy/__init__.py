"""Files for other supervisors: compose, Kubernetes, a dashboard."""
