"""What every package uses: errors in three parts, atomic files, locks, typed JSON, progress, source."""
