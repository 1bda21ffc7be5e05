mod simulation;
mod stories;
