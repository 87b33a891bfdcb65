"""The services that the provisioner serves."""
