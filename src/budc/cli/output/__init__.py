"""What commands print and write: tables, summaries, pictures and clips."""
