"""What every package uses: errors in three parts, atomic files, locks, typed JSON, progress, the kit's source."""
