"""What a policy is worth: reference runs, the quality report, its replay, and the parity of exports."""
