"""Commands that run on another machine: what takes them there, and brings back what they leave."""
