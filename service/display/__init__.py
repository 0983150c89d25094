"""What people read: answers, tables, progress, and the streams that they go to."""
