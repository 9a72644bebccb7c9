"""What comes next. Pure: no Ray, no disk, no clock."""
