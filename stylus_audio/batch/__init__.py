"""Many renders: from a manifest to a folder of stems."""
