"""Targets: other engines that a policy can be written for, each as data and a writer of its configuration."""
