"""The operator's command line: labfleet up, down, status, doctor, image, fsck, bench."""
