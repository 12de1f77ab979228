//! Which rows of activations go to which matrix of a stack, as in a mixture of experts.

/// A row of activations, and the row of the result that its product becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(super) input: usize,
    pub(super) output: usize,
}

/// All that goes to one matrix.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) matrix: usize,
    pub(super) routes: Vec<Route>,
}

/// The matrices in use, in the order of the stack, and what goes to each.
///
/// Every row of the result is that of one route, and every index is in range: products rely on both.
#[derive(Debug)]
pub(crate) struct Routes {
    groups: Vec<Group>,
    pub(super) n_matrices: usize,
    pub(super) n_inputs: usize,
    pub(super) n_outputs: usize,
}

impl Routes {
    /// Sends blocks of `m` rows: `pairs` are a block, of `n_blocks`, and the matrix that it goes to, and
    /// the `p`th pair's product is the `p`th block of the result.
    ///
    /// # Errors
    /// When there is no such block or matrix.
    pub(crate) fn new(
        pairs: &[[usize; 2]],
        m: usize,
        n_blocks: usize,
        n_matrices: usize,
    ) -> Result<Routes, String> {
        let mut counts = vec![0; n_matrices];
        for &[block, matrix] in pairs {
            if block >= n_blocks || matrix >= n_matrices {
                return Err(format!(
                    "{block} of {n_blocks} inputs, {matrix} of {n_matrices} weights"
                ));
            }
            counts[matrix] += 1;
        }
        let (n_inputs, n_outputs) = (n_blocks * m, pairs.len() * m);
        let mut groups = Vec::new();
        if n_outputs == 0 {
            return Ok(Routes { groups, n_matrices, n_inputs, n_outputs });
        }
        // From here on the group of each matrix.
        for (matrix, count) in counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            let routes = Vec::with_capacity(*count * m);
            *count = groups.len();
            groups.push(Group { matrix, routes });
        }
        for (p, &[block, matrix]) in pairs.iter().enumerate() {
            let routes = (0..m).map(|i| Route { input: block * m + i, output: p * m + i });
            groups[counts[matrix]].routes.extend(routes);
        }
        Ok(Routes { groups, n_matrices, n_inputs, n_outputs })
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }
}

/// A result, `[rows, n]`, which the parts of a job share out.
pub(super) struct Scatter<T> {
    data: *mut T,
    n: usize,
}

// SAFETY: parts of a job have distinct elements.
unsafe impl<T: Send> Sync for Scatter<T> {}

impl<T: Copy> Scatter<T> {
    /// # Panics
    /// When the result has not a row of `n` for each route.
    pub(super) fn new(out: &mut [T], n: usize, routes: &Routes) -> Scatter<T> {
        assert_eq!(out.len(), routes.n_outputs * n, "size of the result");
        Scatter { data: out.as_mut_ptr(), n }
    }

    /// Writes some columns of the rows that a group's products become.
    ///
    /// # Safety
    /// The group is of the routes of [`Scatter::new`], and no other thread has these columns of it.
    pub(super) unsafe fn put(&self, group: &Group, first: usize, columns: &[T]) {
        let n = columns.len() / group.routes.len().max(1);
        assert!(first + n <= self.n, "columns");
        for (route, row) in group.routes.iter().zip(columns.chunks_exact(n.max(1))) {
            // SAFETY: the row is in range because the route is one of those, and so are the columns.
            unsafe {
                let to = self.data.add(route.output * self.n + first);
                std::ptr::copy_nonoverlapping(row.as_ptr(), to, n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_grouped_by_matrix_in_their_order() -> Result<(), String> {
        let routes = Routes::new(&[[1, 4], [0, 2], [1, 4], [0, 4]], 2, 2, 5)?;
        let found: Vec<_> = routes
            .groups()
            .iter()
            .map(|group| {
                let rows = group.routes.iter().map(|route| [route.input, route.output]);
                (group.matrix, rows.collect::<Vec<_>>())
            })
            .collect();
        let expected = vec![
            (2, vec![[0, 2], [1, 3]]),
            (4, vec![[2, 0], [3, 1], [2, 4], [3, 5], [0, 6], [1, 7]]),
        ];
        assert_eq!(found, expected);
        assert_eq!((routes.n_inputs, routes.n_outputs), (4, 8));
        Ok(())
    }

    #[test]
    fn what_is_not_there_is_refused() {
        assert!(Routes::new(&[[0, 1]], 1, 1, 2).is_ok());
        assert!(Routes::new(&[[1, 1]], 1, 1, 2).is_err());
        assert!(Routes::new(&[[0, 2]], 1, 1, 2).is_err());
        assert!(Routes::new(&[[0, 0]], 1, 1, 0).is_err());
        for (pairs, m) in [(&[][..], 3), (&[[0, 0]], 0)] {
            assert!(Routes::new(pairs, m, 1, 1).is_ok_and(|routes| routes.groups().is_empty()));
        }
    }
}
