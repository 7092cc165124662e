"""The workloads of plantjax in other frameworks, for the benchmark."""
