"""What this machine is set up with: package indexes, certificates, credentials, tools."""
