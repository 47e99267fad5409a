"""The proof harness of reliability.md section 5.9: workload, history, nemesis, checker. Start at ``prove.py``."""
