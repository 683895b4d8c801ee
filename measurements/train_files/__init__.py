"""The exemplary train files beside what a user would pick instead."""
