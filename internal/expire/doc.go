// Package expire deletes what package retention says is not needed any more.
//
// # Guarantees
//
// Backups go first, all of a round at once, then WAL, oldest first. After a crash at any
// moment everything that is listed is whole, and the next round finishes the work.
//
// A backup that somebody keeps while a round runs stays, with its WAL: the round decides
// anew. No WAL goes that a copy still has to be made of.
//
// [Guard] stops a deletion by hand that would break what the policy promises.
//
// [Look] changes nothing, needs no lock and decides exactly what [Run] does.
package expire
