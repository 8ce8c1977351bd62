// Bugs that a test build can switch on, to prove that the tests catch them. docs/trust.md has the table.
//
// A hook is one line at the place where a good engineer could have made that mistake. Only the preset `planted`
// (KELDA_PLANTED_BUGS) knows the bugs: there KELDA_PLANTED_BUG in the environment names the one that is on, read once at
// the start. In every other build planted() is the constant false, and nothing of this is in the program.
//
// A new mechanism brings its own bug: a line here, its name in planted_bug.cc, the hook, and the tests that catch it in
// tests/planted_bugs.py.
#pragma once

#include <cstdint>

namespace kelda {

enum class Bug : std::uint8_t {
  // runtime/
  kEventSetWithoutWake,      // an event is set, but whoever waits for it sleeps on
  kUnparkOfRunningLost,      // an unpark that comes before the park is not kept
  // disk/
  kChecksumWithoutPageId,    // an intact page at the wrong place verifies
  kReadNotVerified,          // a page read for a miss is not verified
  kReadAheadNotVerified,     // a page read ahead is not verified
  kPageWriteFailureIgnored,  // a page that the device refused counts as written
  kFailedFlushRetried,       // a failed flush of pages or superblock is tried again, and believed
  kSlotNotFlushed,           // pages go in place before their copies are durable
  kSlotReusedTooEarly,       // a double-write slot is overwritten before the pages in place are durable
  kTornPageNotRestored,      // repair finds the torn page and leaves it
  kSuperblockSameCopy,       // each checkpoint overwrites the same copy
  kFormatKeepsOldCopies,     // a forced format leaves the old superblock beside the new one
  // bufferpool/
  kFrameReusedBeforeEpoch,   // a frame leaves limbo while some core may still read it
  kLimboPageInFreshFrame,    // a miss on a page in limbo reads it into another frame
  kPageBeforeLog,            // a page is written before its log is durable
  kChangeDuringWriteLost,    // a page that changed while its copy was written counts as clean
  kWriteBackSkipsBusyPages,  // a checkpoint passes over pages that are latched or going out
  kLatchWaiterNotWoken,      // the last reader of a page does not wake the writer that waits
  // wal/
  kAckBeforeFlush,           // a commit is acknowledged when its log is written, not flushed
  kHardenedOneTooHigh,       // the first record after the cut counts as durable
  kLogWriteFailureIgnored,   // a batch that the device refused counts as written
  kLogFlushRetried,          // a failed flush of the log is tried again, and believed
  kNextLeaderNotWoken,       // the flush's leader leaves without telling the next one
  kBatchPastRingEnd,         // off by one at the log's wrap
  kBatchChainIgnored,        // recovery takes a batch that follows another history
  kRedoSkipsLsnCheck,        // redo applies what the page has already
  kUndoForgetsLastRecord,    // recovery passes over the transaction of the log's last record
  kCompensationWithoutUndoNext,  // a compensation record does not say what it undid
  kRedoPointTooFar,          // the checkpoint's redo point is its end, not its start
  kUndoCopiesForgotten,      // a checkpoint does not copy the undo entries of open transactions
  kUndoPromiseNotTaken,      // undo entries take room of the ring that nobody promised
  kReserveNotGivenBack,      // room that a reservation did not use is lost
  // btree/
  kReadNotValidated,         // an optimistic read of a leaf is believed without a look at its version
  kStaleCursor,              // a cursor goes on in its copy of a leaf that has changed
  kSeparatorTooLow,          // a split's separator is the last key of the left half
  kMergeLosesKey,            // a merge starts at the second key of the right node
  kOverflowFreedTooEarly,    // the pages of a replaced value are free before the commit
  kSpaceMapBitNotLogged,     // an allocation is not in the log
  kFreePageFreedAgain,       // a step that frees does not look whether the page is in use
  kSplitTakesItsOwnPage,     // a split does not look whether the map gave it a page that it holds
  kReusedPageDiscarded,      // a freed page that is in use again is still given back to the device
  kReadsForeignLeaf,         // a point read does not look whether the leaf is its key's
  kFreesNotFinished,         // what a large commit frees is not worked off after a crash
  // engine/
  kLocksBeforeCommitRecord,  // locks go before the commit record is in the log
  kReaderSkipsCommitLsn,     // a read outside a transaction does not wait for what it read
  kScanWithoutLock,          // a scan takes no lock
  kBothReadersUpgrade,       // two readers of a key both become its writer
  kSelfDeadlockNotSeen,      // who asks for a lock of its own thread's other transaction waits for it
  kDropForgotten,            // an emptied tree's pages are not written down as to be reclaimed
  // net/
  kFullDeviceForgotten,      // what found the device full waits for lwIP's timer
  // server/
  kReplyBeforeDurable,       // a reply does not wait for the log
  kMultiInPieces,            // EXEC commits command by command
  kExecIgnoresWatch,         // EXEC does not look at WATCH
  kWatchLookedAtTooEarly,    // EXEC looks at WATCH before it has its locks
  kWatchMissesRemoval,       // WATCH does not see that a key was removed
  kExpiredKeyVisible,        // an expired key is still read
  kCount,                    // none of them
};

#ifdef KELDA_PLANTED_BUGS
// Of all that is used before main(): false.
extern const Bug planted_bug;
inline bool planted(Bug bug) { return bug == planted_bug; }
#else
consteval bool planted(Bug) { return false; }
#endif

}  // namespace kelda
