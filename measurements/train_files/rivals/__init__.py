"""What a user would pick instead, in the form of train files: nobody judges them, they are timed."""
