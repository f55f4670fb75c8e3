"""What every part of the tree shares: errors, files, devices, durations. It imports nothing else of ours."""
