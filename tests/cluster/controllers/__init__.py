"""What a control plane does with the objects: Jobs make pods, owners take what they own with them, nodes get lost."""
