"""What the provisioner reads of jobs beyond what the store's writers return."""
